"""A picture's planes as a Pillow picture and back, a row of a channel at a time.

Pillow keeps four bytes a pixel. Its raw mode ``RGB;L`` reads and writes rows of red, of green and of blue in turn, so
that only whole rows are moved on the tensor's side.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["from_picture", "to_picture"]


def to_picture(planes: Tensor) -> Image.Image:
    """A Pillow picture of mode L or RGB.

    Args:
        planes: uint8 ``(C, H, W)`` on a CPU, 1 or 3 channels.
    """
    channels, height, width = planes.shape
    rows = planes.permute(1, 0, 2).contiguous().numpy()
    mode, raw = ("L", "L") if channels == 1 else ("RGB", "RGB;L")
    return Image.frombytes(mode, (width, height), rows, "raw", raw)


def from_picture(image: Image.Image) -> Tensor:
    """The planes of a picture of mode L or RGB, a new uint8 ``(C, H, W)``."""
    channels, raw = (1, "L") if image.mode == "L" else (3, "RGB;L")
    out = torch.empty(channels, image.height, image.width, dtype=torch.uint8)
    rows = np.frombuffer(image.tobytes("raw", raw), np.uint8)
    out.numpy().transpose(1, 0, 2)[...] = rows.reshape(image.height, channels, image.width)
    return out
