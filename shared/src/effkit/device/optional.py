"""What optional software and hardware loads on this machine, and why the rest does not.

Looked up, not compiled or run: the answer must come within a second or two.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from effkit.provenance import driver_version, package_version


@dataclass(frozen=True)
class Backend:
    """One thing that may or may not run here.

    Args:
        name: What it is.
        available: Whether it was found to load.
        reason: What was found, or what is missing and how to get it.
    """

    name: str
    available: bool
    reason: str


def backends() -> list[Backend]:
    """Everything optional this house can use, whether it loads here, and why not."""
    return [_probe(name, probe) for name, probe in _PROBES.items()]


class _Missing(Exception):
    """Why a backend cannot be used."""


def _probe(name: str, probe: Callable[[], str]) -> Backend:
    # A broken binary raises anything when it is imported (OSError, RuntimeError, AttributeError), not only ImportError.
    try:
        return Backend(name, True, probe())
    except _Missing as reason:
        return Backend(name, False, str(reason))
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        return Backend(name, False, f"{type(error).__name__}: {first}")


def why_no_cuda() -> str:
    """The reason why torch has no CUDA device, for a message."""
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if not driver_version():
        return "no NVIDIA driver was found"
    return f"driver {driver_version()} is there, but torch (CUDA {torch.version.cuda}) sees no GPU"


def _cuda() -> str:
    if not torch.cuda.is_available():
        raise _Missing(why_no_cuda())
    major, minor = torch.cuda.get_device_capability(0)
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return f"{torch.cuda.get_device_name(0)}, sm_{major}{minor}, {memory:.0f} GiB"


def _mps() -> str:
    if not torch.backends.mps.is_available():
        raise _Missing("no Metal GPU")
    return "Metal GPU"


def _installed(distribution: str, extra: str) -> str:
    version = package_version(distribution)
    if not version:
        raise _Missing(f"not installed: pip install {extra}")
    return f"{distribution} {version}"


def _triton() -> str:
    version = _triton_imported()
    if not torch.cuda.is_available():
        raise _Missing(f"{version} is there, but {why_no_cuda()}")
    return version


def _triton_interpreter() -> str:
    active = os.environ.get("TRITON_INTERPRET", "0") == "1"
    return f"{_triton_imported()}, {'switched on' if active else 'TRITON_INTERPRET=1 switches it on'}"


def _triton_imported() -> str:
    if importlib.util.find_spec("triton") is None:
        raise _Missing("not installed; it comes with torch on Linux")
    import triton

    return f"triton {triton.__version__}"


def _flash_attn() -> str:
    _flash_distribution("flash-attn", "'effkit[flash]' (needs a CUDA compiler)")
    from flash_attn import flash_attn_func  # the function itself: the package imports without its compiled part

    return f"flash-attn {package_version('flash-attn')}" if callable(flash_attn_func) else ""


def _flash_attn_4() -> str:
    _flash_distribution("flash-attn-4", "--pre flash-attn-4 (not beside flash-attn)")
    from flash_attn.cute import flash_attn_func

    return f"flash-attn-4 {package_version('flash-attn-4')}" if callable(flash_attn_func) else ""


def _flash_distribution(name: str, extra: str) -> None:
    """Tell the two apart by distribution: both write the folder ``flash_attn``."""
    owners = {n.replace("_", "-").lower() for n in importlib.metadata.packages_distributions().get("flash_attn", [])}
    if name not in owners:
        raise _Missing(f"not installed: pip install {extra}")


def _compiler() -> str:
    """What torch.compile needs on a CPU, without the seconds that compiling something would take."""
    wanted = os.environ.get("CXX") or ("clang++" if platform.system() == "Darwin" else "g++")
    compiler = shutil.which(wanted)
    if compiler is None:
        raise _Missing(f"no C++ compiler {wanted!r}: install g++ or set CXX")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise _Missing(f"{wanted} is there, but Python.h is not: install the headers of Python (python3-dev)")
    return f"{wanted} and Python.h"


_PROBES: dict[str, Callable[[], str]] = {
    "cuda": _cuda,
    "mps": _mps,
    "triton": _triton,
    "triton interpreter": _triton_interpreter,
    "flash-attn": _flash_attn,
    "flash-attn-4": _flash_attn_4,
    "torch.compile on CPU": _compiler,
    "onnx export": lambda: ", ".join(_installed(name, "onnx onnxscript") for name in ("onnx", "onnxscript")),
    "onnxruntime": lambda: _installed("onnxruntime", "onnxruntime"),
    "tensorboard": lambda: _installed("tensorboard", "'effkit[loggers]'"),
    "wandb": lambda: _installed("wandb", "'effkit[loggers]'"),
    "joblib launcher": lambda: _installed("hydra-joblib-launcher", "'effkit[launchers]'"),
    "submitit launcher": lambda: _installed("hydra-submitit-launcher", "'effkit[launchers]'"),
    "ray": lambda: _installed("ray", "'effkit[ray]'"),
}
