"""Types and precision of the matrix products in kernels, and what the interpreter needs in place of bfloat16."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from effkit.errors import UserError
from effkit.triton.loading import interpreted

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["dot_constants", "tf32", "widened"]


def tf32() -> bool:
    """Whether the user lets float32 products run in TF32 (``torch.set_float32_matmul_precision`` or the newer flag)."""
    import torch

    return torch.backends.cuda.matmul.fp32_precision == "tf32"


def widened(tensor: Tensor) -> Tensor:
    """``tensor``, in float32 if it is bfloat16 and kernels are interpreted; also in place of one that is written to."""
    import torch

    return tensor.float() if tensor.dtype == torch.bfloat16 and interpreted() else tensor


def dot_constants(dtype: torch.dtype) -> dict[str, Any]:
    """Constants of a kernel whose products take operands of ``dtype``.

    Returns:
        ``DOT``, the operands' type, and ``ACC``, the accumulators'; ``PRECISION``, the ``input_precision`` of
        ``tl.dot``; ``EMULATE_BF16``, which the device function ``operand`` takes.

    Raises:
        UserError: If it is no type of products.
    """
    import torch
    import triton.language as tl

    names = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}
    if dtype not in names:
        raise UserError(f"kernels multiply {', '.join(names.values())}, got {dtype}")
    emulate = interpreted() and dtype == torch.bfloat16
    return {
        "DOT": tl.float32 if emulate else getattr(tl, names[dtype]),
        "ACC": tl.float64 if dtype == torch.float64 else tl.float32,
        "PRECISION": "tf32" if dtype == torch.float32 and tf32() else "ieee",
        "EMULATE_BF16": emulate,
    }
