"""How the Triton kernels are loaded and launched.

- Importing this does not import triton (there is none on macOS); the first call does.
- ``TRITON_INTERPRET=1`` runs the kernels in NumPy on the CPU, for tests. ``triton.jit`` decides at decoration time
  whether a kernel is compiled or interpreted, so the files ``*_kernel.py`` are executed once per mode, and both modes
  can live in one process.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from effkit.errors import UserError

__all__ = ["HAS_TRITON", "check_runnable", "interpreted", "kernels", "launch", "power_of_two"]

HAS_TRITON = importlib.util.find_spec("triton") is not None


def interpreted() -> bool:
    """Whether triton is told to interpret kernels on the CPU (read the way triton reads it)."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least ``n``."""
    return 1 << max(n - 1, 0).bit_length()


@cache
def _load(name: str, interpret: bool) -> ModuleType:
    full_name = f"{__package__}._{name}_{'interpreted' if interpret else 'compiled'}"
    spec = importlib.util.spec_from_file_location(full_name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module
    spec.loader.exec_module(module)
    return module


def kernels(name: str) -> ModuleType:
    """The file ``<name>.py`` of this folder, decorated for the mode in force; for kernels and for what they call."""
    return _load(name, interpreted())


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int, **constants: Any) -> None:
    """Run a kernel on the device of its first argument.

    Products and sums are never fused: a multiply-add rounds once where Pillow rounds twice, which changes bytes.

    Args:
        kernel: From :func:`kernels`.
        grid: Numbers of programs.
        *arguments: Its tensors and numbers, in order.
        warps: Warps of a program.
        **constants: Its ``constexpr`` arguments.
    """
    if interpreted():
        kernel[grid](*arguments, **constants)
        return
    with torch.cuda.device(arguments[0].device):
        kernel[grid](*arguments, num_warps=warps, enable_fp_fusion=False, **constants)


def check_runnable(images: Tensor) -> None:
    """Check that the kernels can run on the device of some pictures.

    Raises:
        UserError: Without triton, or off a CUDA device unless kernels are interpreted.
    """
    if not HAS_TRITON:
        raise UserError("backend='triton' needs the package triton, which is not installed; use backend='torch'")
    if images.device.type != ("cpu" if interpreted() else "cuda"):
        wanted = "pictures on the CPU while TRITON_INTERPRET is set" if interpreted() else "a CUDA device"
        raise UserError(f"backend='triton' needs {wanted}, got pictures on {images.device}; use backend='auto'")
