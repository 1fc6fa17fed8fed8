"""Rounding rules of channel counts, the same for one number and for an array of them.

The rules are timm's, in the same floating-point arithmetic, so that a closed form and a built network never disagree.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["EXACT", "ceil_half", "divisible", "halved", "nearest_even", "scaled_divisible"]

EXACT = 2**53
"""Arrays hold whole numbers as float64, several times as fast as int64 and exact below this."""


def halved(side: Any) -> Any:
    """Side after a stride of 2: convolutions here pad so that it is rounded up."""
    return np.ceil(side * 0.5) if isinstance(side, np.ndarray) else (side + 1) // 2


ceil_half = halved


def divisible(value: Any, divisor: int, least: int | None = None) -> Any:
    """Round to a multiple of ``divisor`` that is at least ``least`` and at most 10 % too small (timm's rule).

    Args:
        value: A number, or a float64 array of them.
        divisor: A power of two; divides the result.
        least: Smallest result; ``divisor`` if not given.
    """
    least = divisor if least is None else least
    if isinstance(value, np.ndarray):
        rounded = np.floor((value + divisor / 2) * (1 / divisor))
        rounded *= divisor
        np.maximum(rounded, least, out=rounded)
        rounded += divisor * (rounded < 0.9 * value)
        return rounded
    found = max(least, int(value + divisor / 2) // divisor * divisor)
    return found + divisor if found < 0.9 * value else found


def scaled_divisible(value: Any, factor: float, divisor: int) -> Any:
    """``divisible(value * factor, divisor)``."""
    return divisible(value * (int(factor) if factor == int(factor) else factor), divisor)


def nearest_even(value: Any) -> Any:
    """Nearest whole number, ties to the even one, as Python rounds."""
    return np.rint(value) if isinstance(value, np.ndarray) else round(value)
