"""What the wrappers of the Triton kernels share: the two execution modes, launching, and the checks of arguments.

- Importing these wrappers does not import triton (there is none on macOS); the first call does.
- ``TRITON_INTERPRET=1`` runs the kernels in NumPy on the CPU, for tests. ``triton.jit`` decides at decoration time
  whether a kernel is compiled or interpreted, so the files ``*_kernel.py`` are executed once per mode, and both modes
  can live in one process. The interpreter has no bfloat16: tensors are widened, and kernels round what they multiply.
- Nothing here reads a tensor on the host. Grids and scratch follow from capacities, lengths are read by the kernels,
  so every call can be captured in a CUDA graph and replayed while the sequences grow. The first call for a kind of
  input compiles: make it outside the capture.
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

__all__ = [
    "HAS_TRITON",
    "check_integers",
    "check_lengths",
    "check_runnable",
    "dot_constants",
    "interpreted",
    "kernels",
    "launch",
    "power_of_two",
    "require",
    "widened",
]

HAS_TRITON = importlib.util.find_spec("triton") is not None

_FLOATS = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}
_INTEGERS = (torch.int32, torch.int64)


def interpreted() -> bool:
    """Whether triton is told to interpret kernels on the CPU (read the way triton reads it)."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def power_of_two(n: int, least: int = 1) -> int:
    """The smallest power of two that is at least ``n`` and ``least``."""
    return max(1 << (n - 1).bit_length(), least)


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


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    *arguments: Any,
    warps: int = 4,
    stages: int = 2,
    fuse: bool = True,
    **constants: Any,
) -> None:
    """Run a kernel on the device of its first tensor.

    Args:
        kernel: From :func:`kernels`.
        grid: Numbers of programs.
        *arguments: Its tensors and numbers, in order.
        warps: Warps of a program.
        stages: Stages of its software pipeline.
        fuse: Whether a product and a sum may become one operation that rounds once. Always said, because triton 3.9
            warns that its default will change.
        **constants: Its ``constexpr`` arguments.
    """
    if interpreted():
        kernel[grid](*arguments, **constants)
        return
    tensor = next(a for a in arguments if isinstance(a, Tensor))
    with torch.cuda.device(tensor.device):
        kernel[grid](*arguments, num_warps=warps, num_stages=stages, enable_fp_fusion=fuse, **constants)


def widened(tensor: Tensor) -> Tensor:
    """``tensor``, in float32 if it is bfloat16 and kernels are interpreted."""
    return tensor.float() if tensor.dtype == torch.bfloat16 and interpreted() else tensor


def _tf32() -> bool:
    """Whether the user lets float32 products run in TF32 (``torch.set_float32_matmul_precision`` or the newer flag)."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


def dot_constants(dtype: torch.dtype) -> dict[str, Any]:
    """Constants of a kernel whose products take operands of ``dtype``: their type, the accumulators', the precision."""
    import triton.language as tl

    emulate = interpreted() and dtype == torch.bfloat16
    return {
        "DOT": tl.float32 if emulate else getattr(tl, _FLOATS[dtype]),
        "ACC": tl.float64 if dtype == torch.float64 else tl.float32,
        "PRECISION": "tf32" if dtype == torch.float32 and _tf32() else "ieee",
        "EMULATE_BF16": emulate,
    }


def require(condition: bool, message: str) -> None:
    """Raise a :class:`UserError` unless ``condition`` holds."""
    if not condition:
        raise UserError(message)


def check_runnable(**tensors: Tensor | None) -> None:
    """Check that the kernels can run here and that all tensors are on one device.

    Raises:
        UserError: Without triton, off a CUDA device, on several devices, or in float64 on a GPU.
    """
    if not HAS_TRITON:
        raise UserError("backend='triton' needs the package triton, which is not installed; use backend='torch'")
    device = None
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        device = device or tensor.device
        if tensor.device != device:
            raise UserError(f"{name} must be on device '{device}' like the other tensors, got '{tensor.device}'")
        if interpreted():
            continue
        if device.type != "cuda":
            raise UserError(
                f"backend='triton' needs a CUDA device, got {name} on device '{device}'; move it to one, set "
                "TRITON_INTERPRET=1 (slow, for tests), or use backend='torch'"
            )
        if tensor.dtype == torch.float64:
            raise UserError(
                f"{name} must be float16, bfloat16 or float32 on a GPU, got {tensor.dtype}; use backend='torch'"
            )


def check_lengths(start: Tensor, length: Tensor, batch: int) -> None:
    """Check the device tensors that say where each row begins and ends.

    Raises:
        UserError: If their shapes or types are wrong.
    """
    for name, tensor, shapes in (("start", start, [(batch,)]), ("length", length, [(1,), (batch,)])):
        if tuple(tensor.shape) not in shapes or tensor.dtype not in _INTEGERS or not tensor.is_contiguous():
            raise UserError(
                f"{name} must be contiguous int32 or int64 of shape {' or '.join(map(str, shapes))}, "
                f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
            )


def check_integers(least: int, **values: int) -> None:
    """Check that every value is at least ``least``.

    Raises:
        UserError: Naming the first that is not.
    """
    for name, value in values.items():
        if value < least:
            raise UserError(f"{name} must be at least {least}, got {value}")
