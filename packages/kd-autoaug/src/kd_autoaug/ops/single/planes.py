"""A picture's planes as a Pillow picture and back: large ones a plane at a time, small ones a row.

Pillow keeps four bytes a pixel. Planes are merged from pictures of mode L that share their memory; the raw mode
``RGB;L`` writes rows of red, of green and of blue in turn, and reads them with fewer calls.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kd_autoaug.ops.tables import PLANE

__all__ = ["from_picture", "to_picture"]


def to_picture(planes: Tensor) -> Image.Image:
    """A Pillow picture of mode L or RGB.

    Args:
        planes: uint8 ``(C, H, W)`` on a CPU, 1 or 3 channels.
    """
    channels, height, width = planes.shape
    size = width, height
    if height * width < PLANE:
        rows = planes.permute(1, 0, 2).contiguous().numpy()
        return Image.frombytes("L" if channels == 1 else "RGB", size, rows, "raw", "L" if channels == 1 else "RGB;L")
    # Views of the tensor: merging, or copying, makes a picture of its own of them.
    views = [Image.frombuffer("L", size, p.reshape(-1), "raw", "L", 0, 1) for p in planes.contiguous().numpy()]
    return views[0].copy() if channels == 1 else Image.merge("RGB", views)


def from_picture(image: Image.Image, out: Tensor | None = None) -> Tensor:
    """The planes of a picture of mode L or RGB.

    Args:
        image: The picture.
        out: uint8 ``(C, H, W)`` to write to; a new one if ``None``.

    Returns:
        ``out``.
    """
    channels, raw = (1, "L") if image.mode == "L" else (3, "RGB;L")
    if out is None:
        out = torch.empty(channels, image.height, image.width, dtype=torch.uint8)
    rows = np.frombuffer(image.tobytes("raw", raw), np.uint8)
    out.numpy().transpose(1, 0, 2)[...] = rows.reshape(image.height, channels, image.width)
    return out
