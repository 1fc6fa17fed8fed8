"""Checksums of records: a byte that a disk or a copy changed is found when the record is read, not trained on."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

__all__ = ["record_sums"]

_ODD = np.uint32(0x9E3779B1)


@functools.lru_cache(maxsize=8)
def _factors(count: int) -> np.ndarray:
    """Odd numbers, one for each place; mixed, so that words that change places change the sum."""
    mixed = np.arange(1, count + 1, dtype=np.uint32) * _ODD
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x85EBCA77)
    mixed ^= mixed >> np.uint32(13)
    return mixed | np.uint32(1)


def record_sums(places: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    """A 32-bit sum of each record and of where it stands.

    Words of two bytes times odd factors, modulo 2^32. As an odd factor can be divided out, any change within one word
    changes the sum for certain; any other goes unseen once in some 4e9 times. A record at another record's place, and
    one of zeros, are seen too.

    Args:
        places: Numbers of the records, int64 ``(B,)``.
        parts: Arrays ``(B, n)`` of what they hold, of an even number of bytes an item.

    Returns:
        uint32 ``(B,)``.
    """
    total = (places.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
    widths = [part.shape[1] * part.itemsize // 2 for part in parts]
    factors = _factors(sum(widths))
    begin = 0
    for part, width in zip(parts, widths, strict=True):
        words = np.ascontiguousarray(part).view(np.uint16).reshape(len(places), width)
        total += (words * factors[begin : begin + width]).sum(1, dtype=np.uint32)
        begin += width
    return total
