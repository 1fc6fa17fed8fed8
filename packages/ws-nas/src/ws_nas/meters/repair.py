"""How much a calibrated ranking gains over the raw one, on architectures whose results it was not given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effkit.errors import UserError
from ws_nas.meters.calibration import calibrate_ranking
from ws_nas.meters.ranking import FEWEST
from ws_nas.ops.bootstrap import Interval, tau_resamples
from ws_nas.ops.ranks import kendall_tau, pair_of_scores
from ws_nas.spaces.space import Genotype, Space

__all__ = ["Repair", "repair"]


@dataclass(frozen=True)
class Repair:
    """Calibration with results of randomly drawn architectures, several times.

    Attributes:
        known: Results given in each draw.
        raw: Tau-b of the raw score over the other architectures, by draw.
        calibrated: Of the calibrated ranking over the same.
        foretold: What cross-validation within the given results said it would be.
        gain: Mean of calibrated less raw.
        gain_interval: Its 95 % interval: bootstrap over architectures, in each draw; resamples of all draws together.
    """

    known: int
    raw: tuple[float, ...]
    calibrated: tuple[float, ...]
    foretold: tuple[float, ...]
    gain: float
    gain_interval: Interval

    @property
    def raw_mean(self) -> float:
        """Mean over draws."""
        return float(np.mean(self.raw))

    @property
    def calibrated_mean(self) -> float:
        """Mean over draws."""
        return float(np.mean(self.calibrated))


def repair(
    scores: Any,
    space: Space,
    genotypes: Sequence[Genotype],
    truth: Any,
    *,
    known: int,
    draws: int = 5,
    model: str = "forest",
    folds: int = 5,
    seed: int = 0,
    resamples: int = 1000,
) -> Repair:
    """Measure what calibration gains.

    Args:
        scores: Cheap scores of all, ``[n]``, larger is better.
        space: Theirs.
        genotypes: ``n``.
        truth: Stand-alone results of all, ``[n]``.
        known: How many of them each draw is given; at least 10 others must remain.
        draws: How often.
        model: See :func:`~ws_nas.meters.calibration.calibrate_ranking`.
        folds: Likewise.
        seed: Of the draws, and of all that follows.
        resamples: Of the bootstrap, over all draws together.

    Raises:
        UserError: If too few architectures are known, or remain.
    """
    q, s = pair_of_scores(scores, truth, ("scores", "truth"))
    if len(q) - known < FEWEST:
        raise UserError(f"known={known} of {len(q)} architectures leaves fewer than {FEWEST} to measure on")
    raw, calibrated, foretold, gains = [], [], [], []
    for draw in range(draws):
        chosen = np.random.default_rng((seed, draw)).choice(len(q), known, replace=False)
        given = {genotypes[i]: float(s[i]) for i in chosen}
        found = calibrate_ranking(q, space, genotypes, given, model=model, folds=folds, seed=seed + draw)
        rest = ~found.known
        raw.append(kendall_tau(q[rest], s[rest]))
        calibrated.append(found.held_out_tau(s))
        foretold.append(found.cross_validated_tau)
        number = -(-resamples // draws)
        # The same architectures for both: only then is the difference that of the rankings.
        both = [tau_resamples(x[rest], s[rest], number, seed + draw) for x in (found.predicted, q)]
        gains.append(both[0] - both[1])
    low, high = np.nanquantile(np.concatenate(gains), [0.025, 0.975])
    gain = float(np.mean(calibrated) - np.mean(raw))
    return Repair(known, tuple(raw), tuple(calibrated), tuple(foretold), gain, (float(low), float(high)))
