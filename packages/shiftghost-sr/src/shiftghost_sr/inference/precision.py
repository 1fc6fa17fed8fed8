"""Half precision that overflows is noticed, not written as black pixels."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from effkit.errors import UserError, choose

__all__ = ["DTYPES", "Overflow", "checked", "in_dtype", "not_finite"]

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Overflow(ArithmeticError):
    """A network's output holds values that are not finite."""


def in_dtype(model: nn.Module, precision: str) -> nn.Module:
    """A model whose weights have a dtype: the model itself if they have it, else a copy.

    Args:
        model: The model.
        precision: One of :data:`DTYPES`, or ``"model"`` for what it has.

    Raises:
        UserError: If there is no such precision.
    """
    choose("precision", precision, [*DTYPES, "model"])
    if precision == "model":
        return model
    dtype = DTYPES[precision]
    if all(p.dtype == dtype for p in model.parameters()) and all(
        b.dtype == dtype for b in model.buffers() if b.is_floating_point()
    ):
        return model
    return copy.deepcopy(model).to(dtype)


def checked(run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Raise :class:`Overflow` where a network's output is not finite.

    The output is enough to look at: an infinite value inside stays one, or becomes NaN, through convolutions, sums,
    products and activations; where a ReLU or a sigmoid turns it finite, that is also what the true value gives.
    """

    def run_checked(pictures: Tensor) -> Tensor:
        output = run(pictures)
        if not bool(torch.isfinite(output).all()):
            raise Overflow
        return output

    return run_checked


def not_finite() -> UserError:
    """What is said where even float32 does not help."""
    return UserError("the model's output is not finite in float32: its weights are damaged, or made for other inputs")
