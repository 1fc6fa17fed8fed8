"""Pillow's Gaussian blur in plain torch, bit by bit: three box blurs along each axis, in whole numbers.

A box of fractional radius weighs its inner values by ``ww`` and the two outermost ones by ``fw``, both in units of
2^-24. Whether a radius is fractional, and by how much, Pillow computes in single precision, and so does this. Values
beyond the edge are those of the edge.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["box_radius", "gaussian_blur"]

_PASSES = 3
_ONE = 1 << 24


def box_radius(sigma: Tensor) -> Tensor:
    """Radius of the box that, applied three times, blurs like a Gaussian.

    Args:
        sigma: Standard deviations, float64 ``(B,)``.

    Returns:
        Float32 ``(B,)``, a fraction between two boxes of whole radius.
    """
    sigma = sigma.float()
    variance = sigma * sigma / _PASSES
    length = (12.0 * variance.double() + 1.0).sqrt().float()
    whole = ((length.double() - 1.0) / 2.0).floor().float()
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    return whole + part / (6 * (variance - (whole + 1) * (whole + 1)))


def _box(x: Tensor, radius: Tensor) -> Tensor:
    """One box blur along the last axis, int64 ``(B, C, H, W)``; radius float32 ``(B,)``."""
    last = x.shape[-1] - 1
    whole = radius.long()  # cut, as a C cast does
    inner = (torch.full_like(radius, float(_ONE)) / (radius * 2 + 1)).long()
    outer = (_ONE - (whole * 2 + 1) * inner) // 2
    at = torch.arange(last + 1, device=x.device)
    side = whole[:, None]
    low, high = at - side, at + side  # (B, W), ends included
    until = torch.nn.functional.pad(x.cumsum(-1), (1, 0))

    def take(values: Tensor, where: Tensor) -> Tensor:
        return values.gather(-1, where[:, None, None].expand(*values.shape[:-1], -1))

    total = take(until, high.clamp(max=last) + 1) - take(until, low.clamp(min=0))
    total = total + x[..., :1] * (-low).clamp(min=0)[:, None, None]
    total = total + x[..., -1:] * (high - last).clamp(min=0)[:, None, None]
    ends = take(x, (low - 1).clamp(min=0)) + take(x, (high + 1).clamp(max=last))
    inner, outer = inner.view(-1, 1, 1, 1), outer.view(-1, 1, 1, 1)
    return (total * inner + ends * outer + (1 << 23)) >> 24


def gaussian_blur(images: Tensor, sigma: Tensor, out: Tensor | None = None) -> Tensor:
    """Blur every picture (``ImageFilter.GaussianBlur``); one of deviation 0 or less stays as it is.

    Args:
        images: uint8 ``(B, C, H, W)``.
        sigma: Standard deviations in pixels, float64 ``(B,)``.
        out: Not used: the result is a new tensor.

    Returns:
        uint8 ``(B, C, H, W)``.
    """
    radius = box_radius(sigma.clamp(min=0))
    x = images.long()
    for _ in range(2):  # along the rows, then along the columns
        for _ in range(_PASSES):
            x = _box(x, radius)
        x = x.transpose(2, 3)
    blurred = x.to(torch.uint8).contiguous()
    return torch.where((sigma > 0).view(-1, 1, 1, 1), blurred, images)
