"""Where a cutout goes: the box as each source draws it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from effkit.errors import choose
from kd_autoaug.augmentation.rng import integers, uniform

__all__ = ["STYLES", "box_of", "boxes"]

STYLES: dict[str, str] = {
    "none": "no cutout in this space",
    "half": "Google: the extent is half the side, about a pixel of the picture; reaches over the edge",
    "rectangle": "the Pillow codes: an inclusive rectangle whose corner is moved into the picture; nothing at extent 0",
    "rectangle_or_dot": "the same, one pixel at extent 0",
    "centred": "the extent is the side, rounded, about a pixel of the picture; reaches over the edge",
}


def boxes(style: str, extent: Tensor, across: Tensor, down: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes of cutouts.

    Args:
        style: One of ``STYLES``.
        extent: Pixels, float64 ``(B,)``; what they measure depends on the style.
        across: Words of 32 bits for the place along the width, int64 ``(B,)``.
        down: The same along the height.
        size: Height and width of the picture.

    Returns:
        Left, top, right, bottom, right and bottom not included, int64 ``(B, 4)``.

    Raises:
        UserError: If there is no such style.
    """
    choose("cutout", style, STYLES)
    height, width = size
    if style == "none":
        return torch.zeros(len(extent), 4, dtype=torch.int64, device=extent.device)
    if style.startswith("rectangle"):
        left = (uniform(across) * width - extent / 2.0).clamp(min=0).floor()
        top = (uniform(down) * height - extent / 2.0).clamp(min=0).floor()
        # Pillow cuts the far corner to an integer and draws it too.
        right, bottom = ((left + extent).clamp(max=width)).floor() + 1, ((top + extent).clamp(max=height)).floor() + 1
        box = torch.stack((left, top, right, bottom), -1).long()
        return box if style == "rectangle_or_dot" else box * (extent > 0).unsqueeze(-1)
    x, y = integers(across, width), integers(down, height)
    if style == "half":
        before = after = extent.long()
    else:
        side = (extent + 0.5).floor().long()
        before = side // 2
        after = side - before
    return torch.stack((x - before, y - before, x + after, y + after), -1)


def box_of(style: str, extent: float, across: int, down: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box of one cutout in plain numbers: :func:`boxes`, step by step.

    Args:
        style: One of ``STYLES``.
        extent: Pixels.
        across: Word of 32 bits for the place along the width.
        down: The same along the height.
        size: Height and width of the picture.

    Returns:
        Left, top, right, bottom, right and bottom not included.
    """
    height, width = size
    if style == "none":
        return 0, 0, 0, 0
    if style.startswith("rectangle"):
        if style == "rectangle" and not extent > 0:
            return 0, 0, 0, 0
        left = math.floor(max(across * 2.0**-32 * width - extent / 2.0, 0.0))
        top = math.floor(max(down * 2.0**-32 * height - extent / 2.0, 0.0))
        return left, top, math.floor(min(left + extent, width)) + 1, math.floor(min(top + extent, height)) + 1
    x, y = across * width >> 32, down * height >> 32
    side = math.floor(extent + 0.5)
    before = int(extent) if style == "half" else side // 2
    after = int(extent) if style == "half" else side - before
    return x - before, y - before, x + after, y + after
