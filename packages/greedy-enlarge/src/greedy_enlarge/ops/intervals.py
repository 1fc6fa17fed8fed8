"""Intervals of means: Student's t, for the few seeds that there are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

__all__ = ["mean_interval", "paired_interval", "student"]

_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
_Z95 = 1.959964


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t.

    Args:
        freedom: Degrees of freedom, at least 1. From 10 on by Cornish and Fisher's expansion, to three digits.

    Example:
        >>> round(student(4), 3), round(student(30), 3)
        (2.776, 2.042)
    """
    if freedom <= len(_T95):
        return _T95[freedom - 1]
    z, v = _Z95, freedom
    return z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % interval; infinite for a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.inf
    return mean, student(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def paired_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Mean difference of paired figures, and half of its 95 % interval."""
    return mean_interval([x - y for x, y in zip(a, b, strict=True)])
