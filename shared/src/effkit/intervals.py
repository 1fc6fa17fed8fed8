"""95 % intervals of means, medians and ratios, for the few repeats that there are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Ratio", "mean_interval", "median_interval", "paired_interval", "ratio_interval", "student"]

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


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """A 95 % interval of the median from order statistics, whatever the distribution.

    Args:
        values: Independent measurements.

    Returns:
        Two of the values; `None` for fewer than 6, of which even the least and the largest hold less.

    Example:
        >>> median_interval([5, 1, 4, 2, 3, 6])
        (1, 6)
    """
    ordered, n = sorted(values), len(values)
    tail, rank = 0.0, 0  # the largest rank r with P(Binomial(n, 1/2) < r) <= 2.5 %
    while rank < n // 2:
        tail += math.comb(n, rank) / 2**n
        if tail > 0.025:
            break
        rank += 1
    return (ordered[rank - 1], ordered[n - rank]) if rank else None


class Ratio(NamedTuple):
    """A ratio and its 95 % interval; no ends where there are too few repeats for one."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def differs(self) -> bool | None:
        """Whether the interval leaves 1 out; `None` without one."""
        return None if self.low is None or self.high is None else not self.low <= 1 <= self.high


def ratio_interval(a: Sequence[float], b: Sequence[float], *, paired: bool = False) -> Ratio:
    """How many times `b` is `a`: the ratio of geometric means of positive figures, with Student's interval.

    Unpaired with Welch's degrees of freedom, because two machines scatter differently.

    Args:
        a: Repeats on one side.
        b: Repeats on the other.
        paired: Whether the n-th of one belongs to the n-th of the other (the same seed).

    Returns:
        The ratio; without an interval where a side has a single value.

    Raises:
        ValueError: If a figure is not positive, a side is empty, or pairs are not complete.
    """
    if not a or not b or min(*a, *b) <= 0:
        raise ValueError("a ratio needs positive figures on both sides")
    x, y = np.log(np.asarray(a, dtype=float)), np.log(np.asarray(b, dtype=float))
    middle = float(y.mean() - x.mean())
    if paired:
        middle, half = paired_interval(y.tolist(), x.tolist())
    elif min(len(x), len(y)) < 2:
        half = math.inf
    else:
        parts = [float(z.var(ddof=1)) / len(z) for z in (x, y)]
        total = sum(parts)
        least = sum(part**2 / (len(z) - 1) for part, z in zip(parts, (x, y), strict=True))
        half = student(max(1, int(total**2 / least))) * math.sqrt(total) if least else 0.0
    if math.isinf(half):
        return Ratio(math.exp(middle))
    return Ratio(math.exp(middle), math.exp(middle - half), math.exp(middle + half))
