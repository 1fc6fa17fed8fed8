"""Nearest-neighbour sampling of one large picture on a CPU, with as few passes over its pixels as its map allows.

A translation is a copy of slices. A shear moves whole rows or columns, so that one coordinate of what is read is a
short vector instead of a plane. Only a rotation needs both planes.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["nearest"]

_ONE = 1 << 16


def nearest(picture: Tensor, numbers: list[int], fill: tuple[int, ...], out: Tensor) -> Tensor:
    """Sample a picture by its map in fixed point.

    Args:
        picture: uint8 ``(C, H, W)``.
        numbers: A, B, C, D, E, F of ``kd_autoaug.ops.matrix.fixed_point``.
        fill: Value of each channel where the map leaves the picture.
        out: Receives the result, ``(C, H, W)`` contiguous; may be ``picture`` itself.

    Returns:
        ``out``.
    """
    a, b, c, d, e, f = numbers
    if (a, b, d, e) == (_ONE, 0, 0, _ONE):
        return _shift(picture, c >> 16, f >> 16, fill, out)
    _, height, width = picture.shape
    x = torch.arange(width, dtype=torch.int32)
    y = torch.arange(height, dtype=torch.int32)
    if d == 0 and e == _ONE and a == _ONE:
        columns = x + ((y * b + c) >> 16)[:, None]
        rows = (y + (f >> 16))[:, None]
    elif b == 0 and a == _ONE and e == _ONE:
        columns = (x + (c >> 16))[None]
        rows = y[:, None] + ((x * d + f) >> 16)
    else:
        columns = ((x * a + c) + (y * b)[:, None]).bitwise_right_shift_(16)
        rows = ((x * d + f) + (y * e)[:, None]).bitwise_right_shift_(16)
    return _take(picture, columns, rows, fill, out)


def _shift(picture: Tensor, dx: int, dy: int, fill: tuple[int, ...], out: Tensor) -> Tensor:
    """Pixel (x, y) reads (x + dx, y + dy)."""
    _, height, width = picture.shape
    left, right = max(0, -dx), min(width, width - dx)
    top, bottom = max(0, -dy), min(height, height - dy)
    if left >= right or top >= bottom:
        left = right = top = bottom = 0
    kept = picture[:, top + dy : bottom + dy, left + dx : right + dx]
    if out.data_ptr() == picture.data_ptr():
        kept = kept.clone()
    out[:, top:bottom, left:right] = kept
    for part, value in _colours(out, fill):  # what is left: above, below, and beside
        part[:, :top], part[:, bottom:] = value, value
        part[:, top:bottom, :left], part[:, top:bottom, right:] = value, value
    return out


def _colours(picture: Tensor, fill: tuple[int, ...]) -> list[tuple[Tensor, int]]:
    """The channels that share a colour, together where all do."""
    if len(set(fill)) == 1:
        return [(picture, fill[0])]
    return list(zip(picture.split(1), fill, strict=True))


def _take(picture: Tensor, columns: Tensor, rows: Tensor, fill: tuple[int, ...], out: Tensor) -> Tensor:
    """Read by columns and rows that broadcast to ``(H, W)``, through a frame that stands for all that is outside."""
    channels, height, width = picture.shape
    framed = picture.new_empty(channels, height + 2, width + 2)
    for part, value in _colours(framed, fill):
        part.fill_(value)
    framed[:, 1:-1, 1:-1] = picture
    starts = rows.clamp_(-1, height).add_(1).mul_(width + 2).add_(1)
    places = (columns.clamp_(-1, width) + starts).view(1, -1).long()
    torch.gather(framed.flatten(1), 1, places.expand(channels, -1), out=out.view(channels, -1))
    return out
