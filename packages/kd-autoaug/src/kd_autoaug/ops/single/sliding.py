"""Translations by parts of a pixel, bilinear and bicubic: Pillow interpolates along both sides, where one is enough.

Along the other side every pixel lies exactly on a pixel, whose value such an interpolation returns. What is left is one
fraction a column (or row), and the neighbours are slices. The numbers are float64, in Pillow's order of operations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from kd_autoaug.ops.operators import BICUBIC
from kd_autoaug.ops.tables import PLANE

__all__ = ["slid"]

_AROUND = 2  # neighbours beyond an edge are those on it
_ROWS = 32  # at once, so that temporaries stay in the cache


def slid(image: Image.Image, pixels: float, along: int, how: int, fill: Any) -> Image.Image | None:
    """Translate a large picture.

    Args:
        image: Of mode L or RGB.
        pixels: How far away along the side a pixel is read.
        along: 0: down, 1: across.
        how: Pillow's number of the interpolation, not nearest.
        fill: Colour of what is left empty, as Pillow takes it.

    Returns:
        A new picture, or ``None`` where Pillow does it better: small pictures, and places that rounding makes uneven.
    """
    width, height = image.size
    if width * height < PLANE:
        return None
    side = (height, width)[along]
    places = (np.arange(side) + 0.5) + pixels
    inside = np.flatnonzero((places >= 0) & (places < side))
    out = Image.new(image.mode, image.size, fill)
    if not len(inside):
        return out
    begin, end = int(inside[0]), int(inside[-1]) + 1
    places = places[begin:end] - 0.5
    left = np.floor(places)
    if not (np.diff(left) == 1).all():
        return None
    source = np.asarray(image).reshape(height, width, -1)
    margins = [(0, 0)] * 3
    margins[along] = _AROUND, _AROUND
    padded = np.pad(source, margins, mode="edge").astype(np.int16)
    first, count = int(left[0]) + _AROUND, end - begin
    channels = source.shape[2]
    fractions = (places - left)[:, None] if along == 0 else np.repeat(places - left, channels)[None]
    taps = range(-1, 3) if how == BICUBIC else range(2)
    cuts = [slice(first + tap, first + tap + count) for tap in taps]
    around = [padded[cut] if along == 0 else padded[:, cut] for cut in cuts]
    lines = [part.reshape(len(part), -1) for part in around]
    done = np.empty(lines[0].shape, np.uint8)
    for top in range(0, len(done), _ROWS):
        rows = slice(top, top + _ROWS)
        parts = [line[rows] for line in lines]
        at = fractions[rows] if along == 0 else fractions
        done[rows] = _cubic(parts, at) if how == BICUBIC else _linear(parts, at)
    shape = (count, width) if along == 0 else (height, count)
    patch = Image.fromarray(done.reshape(*shape, channels) if channels > 1 else done.reshape(shape))
    out.paste(patch, (0, begin) if along == 0 else (begin, 0))
    return out


def _linear(values: list[np.ndarray], at: np.ndarray) -> np.ndarray:
    first, second = values
    found = (second - first) * at
    found += first
    return found.astype(np.uint8)


def _cubic(values: list[np.ndarray], at: np.ndarray) -> np.ndarray:
    """The cubic with a = -1 by Horner's rule; sums of values are whole numbers, so only products round."""
    v1, v2, v3, v4 = values
    found = (v2 - v1 - v3 + v4) * at
    found += 2 * (v1 - v2) + v3 - v4
    found *= at
    found += v3 - v1
    found *= at
    found += v2
    return np.clip(found, 0.0, 255.0, out=found).astype(np.uint8)
