"""Checks of arguments that several wrappers of kernels share; devices and types are the core's to check."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from effkit.errors import UserError

__all__ = ["check_finite", "check_integers", "check_lengths", "require"]

_INTEGERS = (torch.int32, torch.int64)


def require(condition: bool, message: str) -> None:
    """Raise a :class:`UserError` unless ``condition`` holds."""
    if not condition:
        raise UserError(message)


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


def check_finite(what: str, **tensors: Tensor) -> None:
    """Refuse NaN and infinities. They survive a sum, so that usually one number a tensor is all there is to look at.

    Args:
        what: What they are of, for the message.
        **tensors: By the name to be said.

    Raises:
        UserError: Naming the first tensor that holds one.
    """
    if math.isfinite(sum(float(t.sum()) for t in tensors.values())):
        return
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"a {name} of {what} is NaN or infinite; ESA would select by nonsense")
