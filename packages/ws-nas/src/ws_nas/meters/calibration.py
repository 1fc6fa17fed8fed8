"""Calibrated ranking: a cheap score of all architectures, repaired by a few stand-alone trainings.

A regressor learns the rank of the truth from the rank of the score, the logarithm of the parameters and the genotype.
What it can be trusted with is printed beside it: the rank correlation on architectures left out of its training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from effkit.errors import UserError, choose
from ws_nas.meters.ranking import FEWEST
from ws_nas.ops.bootstrap import Interval, tau_interval
from ws_nas.ops.ranks import kendall_tau, pair_of_scores
from ws_nas.spaces.space import Genotype, Space

__all__ = ["MODELS", "CalibratedRanking", "calibrate_ranking"]

MODELS = ("forest", "ridge")


@dataclass(frozen=True)
class CalibratedRanking:
    """A repaired score of the same architectures, in the same order.

    Attributes:
        predicted: Predicted rank of the truth, 0 to 1, larger is better, ``[n]``. Of architectures whose truth was
            given it is predicted from the others alone, so that comparisons with the truth stay fair.
        known: Whose truth was given, ``[n]``.
        model: ``forest`` or ``ridge``.
        cross_validated_tau: Tau-b of predictions and truth over those whose truth was given, each left out in turn.
        interval: Its bootstrap 95 % interval.
        raw_tau: Of the raw score over the same.
    """

    predicted: np.ndarray
    known: np.ndarray
    model: str
    cross_validated_tau: float
    interval: Interval
    raw_tau: float

    def order(self) -> list[int]:
        """Places of the architectures from best to worst; of equal ones the first comes first."""
        return np.argsort(-self.predicted, kind="stable").tolist()

    def held_out_tau(self, truth: Any) -> float:
        """Tau-b over the architectures whose truth was not given.

        Args:
            truth: Of all, ``[n]``.
        """
        return kendall_tau(self.predicted[~self.known], np.asarray(truth, dtype=np.float64)[~self.known])

    def to_dict(self) -> dict[str, Any]:
        """Figures, and predictions in order."""
        found = dataclasses.asdict(self)
        return {**found, "predicted": self.predicted.tolist(), "known": np.flatnonzero(self.known).tolist()}


def _rank(values: np.ndarray) -> np.ndarray:
    """Ranks from 0 to 1, ties at their mean."""
    return (rankdata(values) - 1) / max(1, len(values) - 1)


def _features(scores: np.ndarray, space: Space, genotypes: Sequence[Genotype]) -> np.ndarray:
    params = np.array([space.cost(g).params for g in genotypes], dtype=np.float64)
    genes = np.array(genotypes)
    one_hot = [genes[:, i, None] == np.arange(options) for i, options in enumerate(space.choices)]
    return np.concatenate([_rank(scores)[:, None], np.log1p(params)[:, None], *one_hot], axis=1)


def _regressor(model: str, seed: int) -> Any:
    if model == "forest":
        from sklearn.ensemble import RandomForestRegressor

        return RandomForestRegressor(n_estimators=200, min_samples_leaf=2, random_state=seed)
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), Ridge(alpha=1.0))


def calibrate_ranking(
    scores: Any,
    space: Space,
    genotypes: Sequence[Genotype],
    truth: Mapping[Genotype, float],
    *,
    model: str = "forest",
    folds: int = 5,
    seed: int = 0,
) -> CalibratedRanking:
    """Repair a ranking with the stand-alone results of a few of its architectures.

    Args:
        scores: Cheap scores of all, larger is better, ``[n]``.
        space: Theirs.
        genotypes: ``n``, each once.
        truth: Stand-alone results of some of them, at least 10; drawn at random, or the prediction leans to what was
            chosen.
        model: ``forest`` (200 trees, leaves of at least 2) or ``ridge``.
        folds: Of the cross-validation.
        seed: Of the folds and the forest.

    Raises:
        UserError: If lengths differ, a genotype is there twice, is none of the space, or has a truth but no score; or
            the truths are fewer than 10, all equal, or not finite.
    """
    choose("model", model, MODELS)
    listed = [space.check(g) for g in genotypes]
    places = {g: i for i, g in enumerate(listed)}
    if len(places) < len(listed):
        twice = next(g for i, g in enumerate(listed) if places[g] != i)
        raise UserError(f"genotypes holds {space.str(twice)} twice")
    q, _ = pair_of_scores(scores, np.zeros(len(listed)), ("scores", "genotypes"))
    given = {space.check(g): float(s) for g, s in truth.items()}
    for g in given:
        if g not in places:
            raise UserError(f"truth holds {space.str(g)}, which has no score")
    if len(given) < FEWEST:
        raise UserError(f"truth holds {len(given)} results, at least {FEWEST} are needed; 50 to 100 are better")
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= len(given):
        raise UserError(f"folds={folds!r} must be a whole number from 2 to the number of results, {len(given)}")
    known = np.array(sorted(places[g] for g in given))
    s, _ = pair_of_scores([given[listed[i]] for i in known], q[known], ("truth", "scores"))
    if s.min() == s.max():
        raise UserError(f"truth holds {len(given)} equal results ({s[0]:g}): there is no rank to learn")
    features, target = _features(q, space, listed), _rank(s)
    predicted = _regressor(model, seed).fit(features[known], target).predict(features)
    parts = np.array_split(np.random.default_rng(seed).permutation(len(known)), folds)
    left_out = np.empty(len(known))
    for part in parts:
        rest = np.setdiff1d(np.arange(len(known)), part)
        left_out[part] = _regressor(model, seed).fit(features[known[rest]], target[rest]).predict(features[known[part]])
    predicted[known] = left_out
    mask = np.zeros(len(listed), dtype=bool)
    mask[known] = True
    tau = kendall_tau(left_out, s)
    return CalibratedRanking(predicted, mask, model, tau, tau_interval(left_out, s), kendall_tau(q[known], s))
