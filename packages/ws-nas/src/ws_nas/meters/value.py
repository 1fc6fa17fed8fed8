"""M1, the value gap: how far inherited accuracies lie below those of the same networks trained alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from effkit.errors import UserError
from ws_nas.ops.ranks import pair_of_scores

__all__ = ["ValueGap", "value_gap"]

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class ValueGap:
    """Distribution of ``s - q`` over architectures, in the unit of both.

    Attributes:
        n: Architectures.
        mean: Mean of the differences.
        std: Their standard deviation (n - 1).
        quantiles: By share, 0.05 to 0.95.
        least: Smallest difference; below 0 where a sub-network is better inside the supernet than alone.
        most: Largest.
    """

    n: int
    mean: float
    std: float
    quantiles: dict[str, float]
    least: float
    most: float


def value_gap(q: Any, s: Any, *, alike: bool = False) -> ValueGap:
    """M1: the distribution of stand-alone less inherited accuracy.

    Args:
        q: Inherited accuracies, ``[n]``.
        s: Stand-alone accuracies of the same architectures, ``[n]``, in the same unit.
        alike: Both are known to be of one unit; else fractions beside percent are looked for, and a supernet whose
            every accuracy is below 1 percent would pass for one that gives fractions.

    Raises:
        UserError: If they are not two vectors of one length of at least 2, or one holds fractions and the other
            percent.
    """
    a, b = pair_of_scores(q, s)
    if len(a) < 2:
        raise UserError(f"q has {len(a)} scores: a value gap needs at least 2 architectures")
    for name, x in (("q", a), ("s", b)):
        if x.min() < 0:
            raise UserError(f"{name} holds {x.min():g}: the value gap compares accuracies, and none is below 0")
    if not alike and (a.max() <= 1) != (b.max() <= 1) and min(a.max(), b.max()) > 0:
        low, high = ("q", "s") if a.max() <= 1 else ("s", "q")
        raise UserError(f"{low} holds fractions and {high} percent (up to {max(a.max(), b.max()):g}): give both alike")
    gap = b - a
    quantiles = {f"{share:g}": float(v) for share, v in zip(_QUANTILES, np.quantile(gap, _QUANTILES), strict=True)}
    return ValueGap(len(gap), float(gap.mean()), float(gap.std(ddof=1)), quantiles, float(gap.min()), float(gap.max()))
