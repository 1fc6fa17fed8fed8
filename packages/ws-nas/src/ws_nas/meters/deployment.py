"""M4, the deployment gap: whether architectures rank alike at search scale and at the scale they are used at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from effkit.errors import UserError
from ws_nas.meters.ranking import FEWEST
from ws_nas.ops.bootstrap import Interval, tau_interval
from ws_nas.ops.ranks import kendall_tau, pair_of_scores

__all__ = ["DeploymentGap", "deployment_gap"]


@dataclass(frozen=True)
class DeploymentGap:
    """Rank correlation between two scales.

    Attributes:
        n: Architectures.
        tau: Tau-b between both scores.
        interval: Its bootstrap 95 % interval.
        gap: ``1 - tau``.
    """

    n: int
    tau: float
    interval: Interval
    gap: float


def deployment_gap(small: Any, large: Any, *, resamples: int = 1000, seed: int = 0) -> DeploymentGap:
    """M4: tau-b between scores of the same genotypes at search scale and at evaluation scale.

    Args:
        small: Scores at search scale (few cells, few channels), ``[n]``, larger is better.
        large: Scores at evaluation scale, ``[n]``.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        UserError: If there are fewer than 10 architectures, lengths differ, or scores are not finite.
    """
    a, b = pair_of_scores(small, large, ("small", "large"))
    if len(a) < FEWEST:
        raise UserError(f"n={len(a)} architectures are too few for a rank correlation, at least {FEWEST} are needed")
    tau = kendall_tau(a, b)
    return DeploymentGap(len(a), tau, tau_interval(a, b, resamples, seed), 1 - tau)
