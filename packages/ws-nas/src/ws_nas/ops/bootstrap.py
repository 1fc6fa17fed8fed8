"""The bootstrap of Kendall's tau over architectures: all resamples at once, by products of matrices."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from scipy import stats

from effkit.errors import UserError

__all__ = ["Interval", "tau_interval", "tau_resamples"]

MOST = 100_000  # resamples; their draws are held at once

_MATRIX = 2048  # architectures up to which the signs of all pairs are held: 3 x 16 MB

Interval = tuple[float, float]


def tau_resamples(q: np.ndarray, s: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Tau-b of resampled architectures.

    An architecture that is drawn twice is tied with itself in both scores, so such pairs take no side and are in no
    denominator: with counts c, tau-b is c'Sc over the root of (c'|Q|c)(c'|T|c), Q and T the signs of all differences of
    either score, and S their product.

    Args:
        q: ``[n]`` finite.
        s: ``[n]`` finite.
        resamples: How many.
        seed: Of the draws.

    Returns:
        ``[resamples]``; nan where all of a resample's scores are equal.
    """
    n, generator = len(q), np.random.default_rng(seed)
    draws = generator.integers(0, n, (resamples, n))
    if n > _MATRIX:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.array([stats.kendalltau(q[d], s[d]).statistic for d in draws])
    counts = np.stack([np.bincount(d, minlength=n) for d in draws]).astype(np.float32)
    signs = [np.sign(x[:, None] - x[None, :]).astype(np.float32) for x in (q, s)]

    def form(matrix: np.ndarray) -> np.ndarray:
        # Whole numbers; a row's product stays below 2^24 for n <= 2048, and the last sum is taken in float64.
        return np.einsum("bi,bi->b", counts @ matrix, counts, dtype=np.float64)

    agree = form(signs[0] * signs[1])
    untied = form(np.abs(signs[0])) * form(np.abs(signs[1]))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(untied > 0, agree / np.sqrt(untied), math.nan)


def tau_interval(q: Any, s: Any, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
    """Bootstrap interval of tau-b over architectures, by percentiles.

    Args:
        q: ``[n]``.
        s: ``[n]``.
        resamples: At least 100.
        seed: Of the draws.
        level: Share of resamples inside.

    Returns:
        Its ends; nan if tau is not defined.

    Raises:
        UserError: If ``resamples`` or ``level`` is out of range.
    """
    if isinstance(resamples, bool) or not isinstance(resamples, int) or not 100 <= resamples <= MOST:
        raise UserError(f"resamples={resamples!r} must be a whole number of at least 100 and at most {MOST:,}")
    if not 0 < level < 1:
        raise UserError(f"level={level!r} must lie between 0 and 1")
    a, b = np.asarray(q, dtype=np.float64), np.asarray(s, dtype=np.float64)
    found = tau_resamples(a, b, resamples, seed)
    found = found[np.isfinite(found)]
    if a.min() == a.max() or b.min() == b.max() or not len(found):
        return math.nan, math.nan
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
