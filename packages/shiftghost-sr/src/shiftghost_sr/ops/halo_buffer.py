"""Maps in a buffer with zeros around them, so that a kernel of any size needs no padding of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from shiftghost_sr.ops.fold import Pads

__all__ = ["Activation", "empty_halo", "halo_buffer", "layout_of", "padded", "write_activated"]

Activation = Callable[[Tensor], Tensor] | None


def layout_of(x: Tensor) -> torch.memory_format:
    """The memory format to make new maps in beside ``x``."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def write_activated(out: Tensor, x: Tensor, act: Activation) -> None:
    """``out = act(x)`` into a view, in one pass where torch can."""
    if act is None:
        out.copy_(x)
    elif isinstance(act, torch.nn.ReLU):
        torch.clamp_min(x, 0, out=out)
    elif isinstance(act, torch.nn.LeakyReLU):
        torch.ops.aten.leaky_relu.out(x, act.negative_slope, out=out)
    else:
        out.copy_(act(x))


def _clipped(size: int, before: int, after: int) -> tuple[slice, slice]:
    """Where ``size`` numbers go among ``before + size + after``, of which ``before`` and ``after`` may be negative."""
    first, last = max(-before, 0), min(size, size + after)
    first, last = min(first, size), max(last, min(first, size))
    return slice(first + before, last + before), slice(first, last)


Place = tuple[slice, slice]
"""Where numbers go in a buffer, and which of the maps' they are."""


def empty_halo(like: Tensor, shape: Sequence[int], pads: Pads) -> tuple[Tensor, Place, Place]:
    """A buffer with zeros around, not filled yet.

    Args:
        like: For device, type and memory format.
        shape: Of the maps, ``(N, n, H, W)``.
        pads: As of :func:`halo_buffer`.

    Returns:
        ``(N, n, H + above + below, W + left + right)``; where rows go, and where columns.
    """
    (rows, from_rows), (columns, from_columns) = (
        _clipped(size, *pads[2 * i : 2 * i + 2]) for i, size in enumerate(shape[2:])
    )
    # A frame smaller than what is cut off leaves nothing, but a kernel still needs its own size to read zeros.
    whole = (*shape[:2], max(shape[2] + pads[0] + pads[1], 0), max(shape[3] + pads[2] + pads[3], 0))
    buffer = torch.empty(whole, dtype=like.dtype, device=like.device, memory_format=layout_of(like))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        buffer.zero_()
    for strip in (buffer[:, :, : rows.start], buffer[:, :, rows.stop :]):
        strip.zero_()
    for strip in (buffer[:, :, rows, : columns.start], buffer[:, :, rows, columns.stop :]):
        strip.zero_()
    return buffer, (rows, from_rows), (columns, from_columns)


def halo_buffer(parts: Sequence[Tensor], acts: Sequence[Activation], pads: Pads) -> Tensor:
    """Join maps along their channels, activated, with zeros around.

    Args:
        parts: ``(N, n_i, H, W)``.
        acts: Of each.
        pads: Rows above and below, columns left and right; negative ones cut.

    Returns:
        ``(N, sum n_i, H + above + below, W + left + right)``.
    """
    first = parts[0]
    shape = (first.shape[0], sum(p.shape[1] for p in parts), *first.shape[2:])
    buffer, (rows, from_rows), (columns, from_columns) = empty_halo(first, shape, pads)
    place = 0
    for part, act in zip(parts, acts, strict=True):
        there = buffer[:, place : place + part.shape[1], rows, columns]
        write_activated(there, part[..., from_rows, from_columns], act)
        place += part.shape[1]
    return buffer


def padded(parts: Sequence[Tensor], acts: Sequence[Activation], pads: Pads) -> Tensor:
    """The same out of place, for exporters."""
    whole = [p if act is None else act(p) for p, act in zip(parts, acts, strict=True)]
    x = whole[0] if len(whole) == 1 else torch.cat(whole, dim=1)
    return F.pad(x, (pads[2], pads[3], pads[0], pads[1]))
