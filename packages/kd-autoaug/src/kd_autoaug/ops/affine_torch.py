"""Affine sampling of a batch, each picture by its own map: nearest, bilinear and bicubic exactly as Pillow does it."""

from __future__ import annotations

import torch
from torch import Tensor

from kd_autoaug.ops.matrix import LONGEST, fits_fixed_point, fixed_point
from kd_autoaug.ops.operators import BICUBIC, NEAREST
from kd_autoaug.ops.tables import to_bytes

__all__ = ["affine", "column"]

Fill = tuple[int, ...]


def column(images: Tensor, fill: Fill) -> Tensor:
    """A colour as uint8 ``(C, 1, 1)``, made on the pictures' device: a copy from the host would make it wait."""
    return torch.cat([images.new_full((1, 1, 1), value) for value in fill])


def affine(
    images: Tensor, coefficients: Tensor, interpolation: Tensor, fill: Fill, out: Tensor | None = None
) -> Tensor:
    """Sample every picture by its map.

    Args:
        images: uint8 ``(B, C, H, W)``.
        coefficients: Float64 ``(B, 6)``, see ``kd_autoaug.ops.matrix``.
        interpolation: Pillow's numbers ``(B,)``, best sorted: each run of equal ones is one call.
        fill: Value of each channel where the map leaves the picture.
        out: Not used: the result is a new tensor.

    Returns:
        uint8 ``(B, C, H, W)``.
    """
    present, counts = torch.unique_consecutive(interpolation, return_counts=True)
    if len(present) == 1:
        return _sample(images, coefficients, int(present[0]), fill)
    out = torch.empty_like(images)
    begin = 0
    for number, count in zip(present.tolist(), counts.tolist(), strict=True):
        part = slice(begin, begin + count)
        out[part] = _sample(images[part], coefficients[part], number, fill)
        begin += count
    return out


def _sample(images: Tensor, coefficients: Tensor, interpolation: int, fill: Fill) -> Tensor:
    if interpolation != NEAREST:
        return _smooth(images, coefficients, interpolation == BICUBIC, fill)
    height, width = images.shape[-2:]
    apart = (coefficients[:, 1] == 0) & (coefficients[:, 3] == 0)
    far = ~(fits_fixed_point(coefficients, height, width) | apart)
    if max(height, width) > LONGEST:
        far |= apart
    out = _take(images, *_fixed_positions(coefficients, height, width), fill)
    if far.any():
        which = far.nonzero()[:, 0]
        out[which] = _take(images[which], *_far_positions(coefficients[which], height, width), fill)
    return out


def _fixed_positions(coefficients: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Column and row that each pixel reads, int32 ``(B, H, W)``, in 16.16 fixed point."""
    numbers = fixed_point(coefficients)[:, :, None, None]
    x = torch.arange(width, dtype=torch.int32, device=coefficients.device)
    y = torch.arange(height, dtype=torch.int32, device=coefficients.device)[:, None]
    columns = (numbers[:, 2] + numbers[:, 0] * x) + numbers[:, 1] * y
    rows = (numbers[:, 5] + numbers[:, 3] * x) + numbers[:, 4] * y
    return columns.bitwise_right_shift_(16), rows.bitwise_right_shift_(16)


def _far_positions(coefficients: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The same in floating point, which Pillow falls back to for maps too wide for fixed point.

    Pillow adds step by step, row after row and then pixel after pixel, and so do the running sums of a CPU. A GPU's add
    in another order, which matters only within rounding of a pixel's edge.
    """
    a, b, c, d, e, f = coefficients.unbind(1)
    columns = _steps(c + b * 0.5 + a * 0.5, b, a, height, width)
    rows = _steps(f + e * 0.5 + d * 0.5, e, d, height, width)
    return torch.floor(columns).clamp_(-1, width).int(), torch.floor(rows).clamp_(-1, height).int()


def _steps(start: Tensor, down: Tensor, right: Tensor, height: int, width: int) -> Tensor:
    """``start`` with ``down`` added once a row and ``right`` once a pixel, float64 ``(B, H, W)``."""
    first = torch.cat([start[:, None], down[:, None].expand(-1, height - 1)], 1).cumsum(1)
    return torch.cat([first[:, :, None], right[:, None, None].expand(-1, height, width - 1)], 2).cumsum(2)


def _take(images: Tensor, columns: Tensor, rows: Tensor, fill: Fill) -> Tensor:
    """Read pixels by column and row, int32 ``(B, H, W)``; those outside give ``fill``.

    A frame of one pixel in the colour of ``fill`` stands for all that is outside, so nothing has to be compared.
    """
    batch, channels, height, width = images.shape
    framed = images.new_empty(batch, channels, height + 2, width + 2)
    for channel, value in enumerate(fill):
        framed[:, channel] = value
    framed[:, :, 1:-1, 1:-1] = images
    places = rows.clamp_(-1, height).add_(1).mul_(width + 2).add_(columns.clamp_(-1, width)).add_(1)
    places = places.view(batch, 1, height * width).long().expand(batch, channels, height * width)
    return framed.flatten(2).gather(2, places).view_as(images)


def _smooth(images: Tensor, coefficients: Tensor, cubic: bool, fill: Fill) -> Tensor:
    """Bilinear or bicubic in float64, truncated; neighbours beyond an edge are those on it."""
    batch, channels, height, width = images.shape
    a, b, c, d, e, f = coefficients[:, :, None, None].unbind(1)
    x = torch.arange(width, dtype=torch.float64, device=images.device) + 0.5
    y = torch.arange(height, dtype=torch.float64, device=images.device)[:, None] + 0.5
    columns, rows = a * x + b * y + c, d * x + e * y + f
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    columns, rows = columns.clamp_(-2.0, width + 2.0).sub_(0.5), rows.clamp_(-2.0, height + 2.0).sub_(0.5)
    left, top = torch.floor(columns), torch.floor(rows)
    dx, dy = ((t).flatten(1)[:, None] for t in (columns - left, rows - top))
    left, top = left.int(), top.int()
    flat = images.flatten(2)

    def row(offset: int) -> Tensor:
        """One row of neighbours, interpolated across."""
        start = (top + offset).clamp_(0, height - 1).mul_(width)

        def pixel(shift: int) -> Tensor:
            place = (start + (left + shift).clamp_(0, width - 1)).long().view(batch, 1, -1)
            return flat.gather(2, place.expand(-1, channels, -1)).double()

        return mix([pixel(shift) for shift in around], dx)

    mix, around = (_cubic, (-1, 0, 1, 2)) if cubic else (_linear, (0, 1))
    value = mix([row(offset) for offset in around], dy)
    sampled = to_bytes(value).view(images.shape)
    colour = column(images, fill)
    within, without = inside[:, None].view(torch.uint8), (~inside)[:, None].view(torch.uint8)
    return sampled.mul_(within).add_(without * colour)  # forty times as fast as a selection by a mask


def _linear(values: list[Tensor], at: Tensor) -> Tensor:
    first, second = values
    return second.sub_(first).mul_(at).add_(first)


def _cubic(values: list[Tensor], at: Tensor) -> Tensor:
    """The cubic with a = -1, by Horner's rule in Pillow's order of operations."""
    v1, v2, v3, v4 = values
    p2 = -v1 + v3
    p3 = 2 * (v1 - v2) + v3 - v4
    p4 = -v1 + v2 - v3 + v4
    return v2 + at * (p2 + at * (p3 + at * p4))
