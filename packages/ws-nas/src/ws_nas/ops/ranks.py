"""Rank correlations and selection figures of two scores of the same architectures, ties handled and said.

Everywhere, larger is better. Nothing here depends on the order of the architectures: where a cut falls inside a group
of equal scores, the figure is its expectation over how the tie is broken.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from scipy import stats

from effkit.errors import UserError

__all__ = [
    "best_of_top_k", "kendall_tau", "pair_of_scores", "precision_at_k", "regret_at_k", "spearman_rho", "tie_fraction",
    "top_mask", "weighted_tau",
]  # fmt: skip


def pair_of_scores(q: Any, s: Any, names: tuple[str, str] = ("q", "s")) -> tuple[np.ndarray, np.ndarray]:
    """Two scores as float64 vectors of one length.

    Args:
        q: ``[n]``.
        s: ``[n]``.
        names: What to call them in an error.

    Raises:
        UserError: If they are not vectors of the same length, or hold what is no finite number.
    """
    pair = []
    for name, values in zip(names, (q, s), strict=True):
        array = np.asarray(values, dtype=np.float64)
        if array.ndim != 1:
            raise UserError(f"{name} has shape {list(array.shape)}, expected one score an architecture: [n]")
        if len(bad := np.flatnonzero(~np.isfinite(array))):
            raise UserError(
                f"{name}[{bad[0]}]={array[bad[0]]} is no finite number ({len(bad)} of {len(array)} are not)"
            )
        pair.append(array)
    if len(pair[0]) != len(pair[1]):
        raise UserError(f"{names[0]} has {len(pair[0])} scores and {names[1]} {len(pair[1])}: one an architecture each")
    return pair[0], pair[1]


def _all_equal(*scores: np.ndarray) -> bool:
    if any(len(x) < 2 or x.min() == x.max() for x in scores):
        warnings.warn("all scores are equal, or fewer than two: a rank correlation is not defined (nan)", stacklevel=3)
        return True
    return False


def kendall_tau(q: Any, s: Any) -> float:
    """Kendall's tau-b; pairs tied in either score take no side, and shrink the denominator.

    Args:
        q: ``[n]``.
        s: ``[n]``.

    Returns:
        From -1 to 1; nan, with a warning, if all of ``q`` or all of ``s`` are equal.
    """
    a, b = pair_of_scores(q, s)
    return math.nan if _all_equal(a, b) else float(stats.kendalltau(a, b, variant="b").statistic)


def spearman_rho(q: Any, s: Any) -> float:
    """Spearman's rho, ties at their mean rank; nan, with a warning, as for :func:`kendall_tau`."""
    a, b = pair_of_scores(q, s)
    return math.nan if _all_equal(a, b) else float(stats.spearmanr(a, b).statistic)


def weighted_tau(q: Any, s: Any) -> float:
    """Vigna's weighted tau: exchanges among the best weigh most (hyperbolic weights, mean over both rankings).

    Source: S. Vigna, A weighted correlation index for rankings with ties, WWW 2015; as SciPy computes it.
    """
    a, b = pair_of_scores(q, s)
    return math.nan if _all_equal(a, b) else float(stats.weightedtau(a, b).statistic)


def tie_fraction(q: Any) -> float:
    """Share of pairs that have equal scores.

    Args:
        q: ``[n]``, n >= 2.

    Example:
        >>> tie_fraction([1.0, 1.0, 2.0, 3.0])  # one pair of six
        0.16666666666666666
    """
    values = np.asarray(q, dtype=np.float64)
    counts = np.unique(values, return_counts=True)[1].astype(np.float64)
    n = len(values)
    return float((counts * (counts - 1)).sum() / (n * (n - 1)))


def top_mask(s: Any, fraction: float) -> np.ndarray:
    """The architectures of the best ``fraction`` by ``s``; all that tie at the cut are in.

    Args:
        s: ``[n]``.
        fraction: In (0, 1].

    Returns:
        ``[n]`` booleans; at least ``ceil(fraction * n)`` of them true.
    """
    values = np.asarray(s, dtype=np.float64)
    number = max(1, math.ceil(round(fraction * len(values), 9)))
    return values >= np.sort(values)[-number]


def _share(q: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Those surely in the top k, those tied at its cut, and how many of the tied are in."""
    cut = np.sort(q)[-k]
    above, tied = q > cut, q == cut
    return above, tied, k - int(above.sum())


def _check_k(k: Any, n: int) -> int:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= n:
        raise UserError(f"k={k!r} must be a whole number from 1 to the number of architectures, {n}")
    return int(k)


def precision_at_k(q: Any, s: Any, k: int) -> float:
    """Share of the ``k`` best by ``q`` that are among the ``k`` best by ``s``.

    Raises:
        UserError: If ``k`` is not from 1 to n.
    """
    a, b = pair_of_scores(q, s)
    k = _check_k(k, len(a))
    weights = []
    for values in (a, b):
        above, tied, taken = _share(values, k)
        weights.append(above + tied * (taken / tied.sum()))
    return float(weights[0] @ weights[1] / k)


def best_of_top_k(q: Any, s: Any, k: int) -> float:
    """The largest ``s`` among the ``k`` best by ``q``: what training these k and keeping the best would give.

    Raises:
        UserError: If ``k`` is not from 1 to n.
    """
    a, b = pair_of_scores(q, s)
    k = _check_k(k, len(a))
    above, tied, taken = _share(a, k)
    sure = float(b[above].max()) if above.any() else -math.inf
    choices = np.sort(b[tied])[::-1]
    t = len(choices)
    # The best of `taken` drawn from t is the j-th best with probability C(t-1-j, taken-1) / C(t, taken).
    expected, left, first = 0.0, 1.0, taken / t
    for j in range(t - taken + 1):
        expected += left * first * max(sure, float(choices[j]))
        left *= 1 - first
        first = taken / (t - j - 1) if t - j - 1 else 1.0
    return expected


def regret_at_k(q: Any, s: Any, k: int) -> float:
    """``max s`` less :func:`best_of_top_k`, in the unit of ``s``."""
    a, b = pair_of_scores(q, s)
    return float(b.max()) - best_of_top_k(a, b, k)
