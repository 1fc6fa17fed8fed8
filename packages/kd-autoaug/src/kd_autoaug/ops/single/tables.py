"""Tables of values as Pillow reads them: lists of 256 numbers a channel, kept where an argument comes again.

The formulas are those of :mod:`kd_autoaug.ops.tables` and give the same bytes. A policy without noise has a handful of
arguments, and so a handful of tables; Pillow's own functions make theirs anew for each picture.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate

import numpy as np

__all__ = [
    "SAME",
    "brightness",
    "contrast",
    "equalized",
    "inverted",
    "posterized",
    "solarized",
    "stretched",
    "sum_added",
]

Table = list[int]
SAME: Table = list(range(256))
_KEPT = 512  # of each kind
_VALUES = np.arange(256, dtype=np.float32)


@lru_cache(maxsize=_KEPT)
def posterized(arg: float, channels: int) -> Table:
    """Keep the upper bits; of 0 bits black is left, and 8 or more keep all."""
    mask = 256 - (256 >> min(8, max(0, int(arg))))
    return [v & mask for v in SAME] * channels


@lru_cache(maxsize=_KEPT)
def solarized(arg: float, channels: int) -> Table:
    """Invert values from a threshold on."""
    return [v if v < arg else 255 - v for v in SAME] * channels


@lru_cache(maxsize=_KEPT)
def sum_added(arg: float, channels: int) -> Table:
    """Add to values below 128."""
    return [min(255, max(0, v + int(arg))) if v < 128 else v for v in SAME] * channels


@lru_cache(maxsize=2)
def inverted(channels: int) -> Table:
    """Invert all values."""
    return SAME[::-1] * channels


@lru_cache(maxsize=_KEPT)
def brightness(factor: float, channels: int) -> Table:
    """Blend with black."""
    return _blended(0.0, factor) * channels


@lru_cache(maxsize=2 * 256)  # of a policy without noise
def contrast(mean: int, factor: float, channels: int) -> Table:
    """Blend with one grey."""
    return _blended(float(mean), factor) * channels


def _blended(base: float, factor: float) -> Table:
    """Pillow's blend of every value with one base: single precision, two roundings, cut and truncated."""
    f = np.float32
    found = _VALUES - f(base)
    found *= f(factor)
    found += f(base)
    return np.clip(found, 0.0, 255.0, out=found).astype(np.uint8).tolist()


def stretched(counts: list[int]) -> Table:
    """Stretch one channel's values over 0 to 255, by its histogram."""
    present = [value for value, count in enumerate(counts) if count]
    return _spread(present[0], present[-1])


@lru_cache(maxsize=4096)
def _spread(low: int, high: int) -> Table:
    """Stretch the values from low to high over 0 to 255; the same values where there is nothing to stretch."""
    if high <= low or (low, high) == (0, 255):
        return SAME
    scale = 255.0 / (high - low)
    offset = -low * scale
    return [min(255, max(0, int(v * scale + offset))) for v in SAME]


def equalized(counts: list[int], pixels: int) -> Table:
    """The table of one channel by its histogram; entries above 255 are for Pillow to cut."""
    step = (pixels - next(filter(None, reversed(counts)))) // 255
    return [n // step for n in accumulate(counts[:-1], initial=step // 2)] if step else SAME
