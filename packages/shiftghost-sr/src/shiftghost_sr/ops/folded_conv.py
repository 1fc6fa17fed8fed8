"""Running a folded convolution: valid convolutions on a buffer with zeros around, less what the border has too much."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from shiftghost_sr.ops.fold import Box, Pads
from shiftghost_sr.ops.shift import Direction

__all__ = ["Strip", "border_strips", "box_convolutions", "strips_of_rows", "take_away"]

Strip = tuple[str, int, Tensor]
"""Axis (``rows`` or ``columns``), side (0 first, 1 last), and what is too much there."""


def box_convolutions(buffer: Tensor, kernels: Sequence[Tensor], boxes: Sequence[Box], bias: Tensor | None) -> Tensor:
    """Sum of convolutions with rectangles of one kernel.

    Args:
        buffer: ``(N, maps, H + height - 1, W + width - 1)`` of the whole kernel's height and width.
        kernels: ``(outputs, maps, h, w)`` of each rectangle.
        boxes: Where each lies in the whole kernel.
        bias: ``(outputs,)``.

    Returns:
        ``(N, outputs, H, W)``.
    """
    height = max(b.row + b.height for b in boxes)
    width = max(b.column + b.width for b in boxes)
    rows, columns = buffer.shape[-2] - height + 1, buffer.shape[-1] - width + 1
    out: Tensor | None = None
    for kernel, box in zip(kernels, boxes, strict=True):
        there = buffer
        if (box.height, box.width) != (height, width):
            there = buffer[
                :, :, box.row : box.row + rows + box.height - 1, box.column : box.column + columns + box.width - 1
            ]
        part = F.conv2d(there, kernel, bias if out is None else None)
        out = part if out is None else out + part
    assert out is not None
    return out


def border_strips(
    buffer: Tensor, pads: Pads, moved: dict[Direction, tuple[Tensor | None, Tensor | None]], k: int
) -> list[Strip]:
    """What the folded kernel reads at positions where a moved map is outside the frame, and should be zero.

    Args:
        buffer: As of :func:`box_convolutions`.
        pads: Of the buffer.
        moved: For each move the parts of the moved channels' kernel that can reach such a position: along rows
            ``(outputs, maps, k // 2, k)``, along columns ``(outputs, maps, k, k // 2)``.
        k: Kernel before folding.

    Returns:
        Strips ``(N, outputs, k // 2, W)`` along rows and ``(N, outputs, H, k // 2)`` along columns.
    """
    half = k // 2
    top, bottom, left, right = pads
    height, width = buffer.shape[-2] - top - bottom, buffer.shape[-1] - left - right
    found: list[Strip] = []
    for (a, b), (rows, columns) in moved.items():
        if rows is not None:
            start = top + a - half if a > 0 else top + height + a
            strip = buffer[:, :, start : start + half, left + b - half : left + b + width + half]
            if half > 1:
                strip = F.pad(strip, (0, 0, 0, half - 1) if a > 0 else (0, 0, half - 1, 0))
            found.append(("rows", int(a < 0), F.conv2d(strip, rows)))
        if columns is not None:
            start = left + b - half if b > 0 else left + width + b
            strip = buffer[:, :, top + a : top + a + height, start : start + half]
            if half > 1:
                strip = F.pad(strip, (0, half - 1) if b > 0 else (half - 1, 0))
            found.append(("columns", int(b < 0), F.conv2d(strip, columns, padding=(half, 0))))
    return found


def strips_of_rows(strips: Sequence[Strip], height: int, first: int, last: int) -> list[Strip]:
    """What is too much in rows ``first`` to ``last`` of a frame of ``height`` rows, as strips of these rows alone."""
    found: list[Strip] = []
    for axis, side, strip in strips:
        if axis == "columns":
            found.append((axis, side, strip[:, :, first:last]))
            continue
        size = min(strip.shape[2], height)
        start = 0 if side == 0 else height - size
        low, high = max(first, start), min(last, start + size)
        if low >= high:
            continue
        own = strip if side == 0 else strip[:, :, strip.shape[2] - size :]
        # Which side they lie at in these rows: from the first row down, or up from the last.
        found.append((axis, side, own[:, :, low - start : high - start]))
    return found


def take_away(out: Tensor, strips: Sequence[Strip], *, portable: bool = False) -> Tensor:
    """Subtract strips from the sides they belong to.

    Args:
        out: ``(N, outputs, H, W)``; changed in place unless ``portable``.
        strips: From :func:`border_strips`.
        portable: Build a new tensor from slices, for exporters.
    """
    for axis, side, strip in strips:
        dim = 2 if axis == "rows" else 3
        size = out.shape[dim]
        width = strip.shape[dim]
        if width > size:  # a kernel wider than the frame
            strip = strip.narrow(dim, 0 if side == 0 else width - size, size)
            width = size
        if portable:
            first, second = (width, size - width) if side == 0 else (size - width, width)
            parts = list(torch.split(out, [first, second], dim=dim))
            parts[side] = parts[side] - strip
            out = torch.cat(parts, dim=dim)
        else:
            out.narrow(dim, 0 if side == 0 else size - width, width).sub_(strip)
    return out
