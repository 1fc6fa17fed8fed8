"""Pillow's filter SMOOTH, for large pictures by sums of whole arrays."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from kd_autoaug.ops.tables import PLANE

__all__ = ["smoothed"]


def smoothed(image: Image.Image) -> Image.Image:
    """Smooth by the 3 x 3 kernel (1 1 1; 1 5 1; 1 1 1) / 13, rounded; the outermost pixels keep their values.

    Args:
        image: Of mode L or RGB.

    Returns:
        A new picture of the same mode.
    """
    width, height = image.size
    if width * height < PLANE or min(width, height) < 3:
        return image.filter(ImageFilter.SMOOTH)
    pixels = np.asarray(image)
    # Rows end to end, as in torch_backend.sharpness: a neighbour is an offset. Columns where it is wrong are put back.
    x = pixels.astype(np.int16).reshape(-1)
    step = x.size // (width * height)
    row = step * width
    edge = row + step
    three = x[: -2 * step] + x[step:-step]
    three += x[2 * step :]
    total = three[: -2 * row] + three[row:-row]
    total += three[2 * row :]
    total += x[edge:-edge] << 2
    mean = total.astype(np.float32)
    mean *= np.float32(1 / 13)
    mean += np.float32(0.51)  # rounded half up; see there
    out = pixels.copy()
    out.reshape(-1)[edge:-edge] = mean
    out[:, 0], out[:, -1] = pixels[:, 0], pixels[:, -1]
    return Image.fromarray(out)
