"""Means and 95 % intervals of a few paired runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from effkit.errors import UserError

__all__ = ["Interval", "interval"]

# 97.5 % quantiles of Student's t for 1 to 20 degrees of freedom.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip


@dataclass(frozen=True)
class Interval:
    """A mean and how sure it is.

    Attributes:
        mean: Of the values.
        sd: Their standard deviation.
        half: Half the width of the 95 % t interval of the mean.
        count: Number of values.
    """

    mean: float
    sd: float
    half: float
    count: int

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.half

    def __str__(self) -> str:
        return f"{self.mean:+.1f} ± {self.half:.1f}"


def interval(values: Sequence[float]) -> Interval:
    """Mean, deviation and 95 % t interval.

    Raises:
        UserError: If there are fewer than 2 or more than 21 values.
    """
    if not 2 <= len(values) <= len(_T) + 1:
        raise UserError(f"{len(values)} runs give no interval here: 2 to {len(_T) + 1} are needed")
    sd = statistics.stdev(values)
    return Interval(statistics.fmean(values), sd, _T[len(values) - 2] * sd / math.sqrt(len(values)), len(values))
