"""M2, the ranking gap: whether a score ranks architectures as training each of them alone does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from effkit.errors import UserError
from effkit.notes import say_once
from ws_nas.meters.ceiling import noise_ceiling
from ws_nas.ops.bootstrap import Interval, tau_interval
from ws_nas.ops.ranks import (
    best_of_top_k,
    kendall_tau,
    pair_of_scores,
    precision_at_k,
    regret_at_k,
    spearman_rho,
    tie_fraction,
    top_mask,
    weighted_tau,
)

__all__ = ["FEW", "FEWEST", "RankingGap", "ranking_gap"]

FEWEST, FEW = 10, 50  # architectures below which a tau is refused, and below which it is said to be few
FRACTIONS = (0.5, 0.1, 0.01)


@dataclass(frozen=True)
class RankingGap:
    """How a score ranks architectures, beside the truth.

    Attributes:
        n: Architectures.
        tau: Kendall's tau-b of score and truth.
        interval: Its bootstrap 95 % interval over architectures.
        gap: ``1 - tau``.
        rho: Spearman's.
        weighted: Vigna's weighted tau.
        top: Tau-b among the best by truth, by share; ``None`` where fewer than 10 are left.
        precision: P@k by k.
        best: Best truth among the k best by score, by k.
        regret: What that misses of the best of all, by k.
        ties: Share of pairs with equal scores.
        truth_ties: Share of pairs of equal truth.
        ceiling: Tau-b between seeds of the truth; ``None`` if not given.
        single_seed_tau: Mean tau-b against single seeds, which is what the ceiling bounds; ``None`` without seeds.
        baselines: Tau-b of what costs nothing, by name.
        notes: What a reader must know.
    """

    n: int
    tau: float
    interval: Interval
    gap: float
    rho: float
    weighted: float
    top: dict[str, float | None]
    precision: dict[str, float]
    best: dict[str, float]
    regret: dict[str, float]
    ties: float
    truth_ties: float
    ceiling: float | None = None
    single_seed_tau: float | None = None
    baselines: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def of_ceiling(self) -> float | None:
        """Share of what seed noise allows; against a single seed of the truth, where there are seeds."""
        if self.ceiling is None or not self.ceiling > 0:
            return None
        return (self.tau if self.single_seed_tau is None else self.single_seed_tau) / self.ceiling

    @property
    def beats(self) -> dict[str, bool]:
        """Whether the whole interval lies above a baseline, by its name."""
        return {name: self.interval[0] > value for name, value in self.baselines.items()}


def ranking_gap(
    q: Any,
    s: Any,
    *,
    ceiling: float | None = None,
    baselines: Mapping[str, float] | None = None,
    ks: Sequence[int] = (1, 5, 10),
    resamples: int = 1000,
    seed: int = 0,
) -> RankingGap:
    """M2: rank correlation, selection and regret of a score.

    Args:
        q: Scores, larger is better, ``[n]``; of losses, their negatives.
        s: The truth: ``[n]``, or ``[seeds, n]`` of independent trainings, whose mean is the truth and which give the
            noise ceiling if ``ceiling`` does not.
        ceiling: Tau-b between seeds of the truth, where it is known from elsewhere.
        baselines: Tau-b by name, see :func:`~ws_nas.meters.ceiling.structural_baselines`.
        ks: For P@k, best-of-top-k and regret@k; those above n are left out.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        UserError: If there are fewer than 10 architectures, lengths differ, or figures are not finite.
    """
    truth = np.asarray(s, dtype=np.float64)
    rows = truth[None] if truth.ndim == 1 else truth
    a, b = pair_of_scores(q, rows.mean(0) if rows.ndim == 2 else truth)
    n = len(a)
    if n < FEWEST:
        null = ((4 * n + 10) / (9 * n * (n - 1))) ** 0.5 if n > 1 else float("inf")
        raise UserError(
            f"n={n} architectures are too few for a rank correlation: without any relation tau scatters by {null:.2f}; "
            f"at least {FEWEST} are needed, {FEW} or more are better"
        )
    notes = []
    if n < FEW:
        null = ((4 * n + 10) / (9 * n * (n - 1))) ** 0.5
        notes.append(
            f"only {n} architectures: without any relation tau scatters by {null:.2f} (one standard deviation)"
        )
        say_once(notes[-1], "ws_nas")
    if ceiling is None and len(rows) > 1:
        ceiling = noise_ceiling(rows)
    tau, ties = kendall_tau(a, b), tie_fraction(a)
    single = float(np.mean([kendall_tau(a, row) for row in rows])) if len(rows) > 1 else None
    if single is not None:
        notes.append(
            f"tau and baselines are held against the mean of {len(rows)} seeds, less noisy than one; the noise ceiling "
            f"bounds tau against single seeds, {single:.3f} in the mean"
        )
    if ties > 0.01:
        notes.append(f"{100 * ties:.1f} % of the pairs have equal scores: they take no side in tau-b")
    top: dict[str, float | None] = {}
    for fraction in FRACTIONS:
        mask = top_mask(b, fraction)
        split = min(len(np.unique(x[mask])) for x in (a, b)) > 1
        top[f"{100 * fraction:g} %"] = kendall_tau(a[mask], b[mask]) if mask.sum() >= FEWEST and split else None
    sizes = [k for k in ks if k <= n]
    return RankingGap(
        n=n, tau=tau, interval=tau_interval(a, b, resamples, seed), gap=1 - tau, rho=spearman_rho(a, b),
        weighted=weighted_tau(a, b), top=top,
        precision={str(k): precision_at_k(a, b, k) for k in sizes},
        best={str(k): best_of_top_k(a, b, k) for k in sizes},
        regret={str(k): regret_at_k(a, b, k) for k in sizes},
        ties=ties, truth_ties=tie_fraction(b), ceiling=ceiling,
        single_seed_tau=single,
        baselines=dict(baselines or {}), notes=tuple(notes),
    )  # fmt: skip
