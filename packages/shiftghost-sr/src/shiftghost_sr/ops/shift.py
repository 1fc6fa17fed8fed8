"""Moving maps by whole pixels, with zeros from outside the frame; as copies of slices, never as a convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from effkit.errors import UserError

__all__ = ["Direction", "add_shifted", "copy_shifted", "read_direction", "shift2d", "windows"]

Direction = tuple[int, int]


def read_direction(value: Any, name: str = "direction") -> Direction:
    """Two whole numbers.

    Raises:
        UserError: If it is anything else.
    """
    whole = isinstance(value, tuple | list) and len(value) == 2
    if not whole or any(isinstance(v, bool) or not isinstance(v, int) for v in value):
        raise UserError(f"{name}={value!r} must be two whole numbers (dy, dx)")
    return (value[0], value[1])


def windows(size: int, move: int) -> tuple[slice, slice]:
    """Where reading at ``i + move`` stays inside ``size``: slices of the target and of the source, maybe empty."""
    length = max(size - abs(move), 0)
    start = max(-move, 0)
    source = max(move, 0)
    return slice(start, start + length), slice(source, source + length)


def _pair(x: Tensor, v: Direction) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    (ty, sy), (tx, sx) = windows(x.shape[-2], v[0]), windows(x.shape[-1], v[1])
    return (..., ty, tx), (..., sy, sx)


def copy_shifted(out: Tensor, x: Tensor, v: Direction) -> None:
    """Write into ``out`` what is read from ``x`` at a displacement; zeros where that is outside.

    Args:
        out: Target ``(N, C, H, W)``, may be a view.
        x: Source of the same shape.
        v: ``(dy, dx)``: ``out[y, x] = x[y + dy, x + dx]``.
    """
    target, source = _pair(x, v)
    height, width = x.shape[-2:]
    rows, columns = target[1], target[2]
    if rows.start >= rows.stop or columns.start >= columns.stop:
        out.zero_()
        return
    out[target].copy_(x[source])
    # Only the strips that nothing was moved into.
    for strip in (slice(0, rows.start), slice(rows.stop, height)):
        out[..., strip, :].zero_()
    for strip in (slice(0, columns.start), slice(columns.stop, width)):
        out[..., strip].zero_()


def add_shifted(out: Tensor, x: Tensor, v: Direction) -> None:
    """Add in place what :func:`copy_shifted` would write."""
    target, source = _pair(x, v)
    out[target].add_(x[source])


class _Shift(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Direction) -> Tensor:
        ctx.v = v
        out = torch.empty_like(x)
        copy_shifted(out, x, v)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Shift.apply(grad, (-ctx.v[0], -ctx.v[1])), None  # type: ignore[return-value]


def shift2d(x: Tensor, direction: Direction) -> Tensor:
    """Read every map at a displacement: ``out[..., y, x] = x[..., y + dy, x + dx]``, zeros outside the frame.

    The content moves by ``(-dy, -dx)``; the adjoint is the shift by ``(-dy, -dx)``, which is its gradient.

    Args:
        x: ``(..., H, W)``; its memory format is kept.
        direction: ``(dy, dx)`` in pixels, any size.

    Returns:
        A new tensor of the same shape.

    Raises:
        UserError: If ``x`` has fewer than two dimensions, or the direction is not two whole numbers.
    """
    if not isinstance(x, Tensor) or x.dim() < 2:
        got = f"{x.dim()} dimensions" if isinstance(x, Tensor) else type(x).__name__
        raise UserError(f"x must be a tensor (..., H, W), got {got}")
    found: Tensor = _Shift.apply(x, read_direction(direction))  # type: ignore[assignment]
    return found
