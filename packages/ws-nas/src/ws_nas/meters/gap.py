"""The five meters of one supernet in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effkit.errors import UserError, choose
from ws_nas.evaluation.scoring import Scores, score
from ws_nas.meters.ceiling import structural_baselines
from ws_nas.meters.deployment import DeploymentGap
from ws_nas.meters.discretization import DiscretizationGap
from ws_nas.meters.hypergradient import HypergradientError
from ws_nas.meters.ranking import ranking_gap
from ws_nas.meters.report import GapReport
from ws_nas.meters.value import ValueGap, value_gap
from ws_nas.spaces.space import Genotype, Space
from ws_nas.supernets.supernet import Supernet

__all__ = ["foreign_scores", "gap"]

Foreign = tuple[Callable[[Genotype], Any], Callable[[Tensor], Tensor]]

NO_MIXTURE = "no mixture of operations is trained, so none is discretised"
ONE_SCALE = "scores are of one scale only"
NO_HYPERGRADIENT = "no gradient of architecture parameters is estimated"


def foreign_scores(
    supernet: Foreign, genotypes: Sequence[Genotype], batches: Sequence[tuple[Tensor, Tensor]]
) -> Scores:
    """Scores of a supernet that is none of ours, one architecture at a time.

    Args:
        supernet: ``set_active(genotype)`` and ``forward(images) -> logits``; statistics of batch normalisation are its
            own matter.
        genotypes: ``G``.
        batches: Images and labels.

    Raises:
        UserError: If there is no batch, or a logit is not finite.
    """
    set_active, forward = supernet
    pairs = list(batches)
    if not pairs:
        raise UserError("batches is empty: scores need at least one batch of images and labels")
    accuracies, losses = [], []
    for genotype in genotypes:
        set_active(genotype)
        right, loss, count = 0, 0.0, 0
        with torch.no_grad():
            for images, labels in pairs:
                logits = forward(images).float()
                if not bool(torch.isfinite(logits).all()):
                    raise UserError(f"logits of genotype={genotype} hold what is no finite number")
                right += int((logits.argmax(1) == labels).sum())
                loss += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
                count += len(labels)
        accuracies.append(right / count)
        losses.append(loss / count)
    return Scores(torch.tensor(accuracies, dtype=torch.float64), torch.tensor(losses, dtype=torch.float64))


def gap(
    supernet: Supernet | Foreign | None,
    space: Space,
    genotypes: Sequence[Genotype],
    truth: Any,
    *,
    batches: Sequence[tuple[Tensor, Tensor]] = (),
    calibration: Sequence[Tensor] | None = None,
    mode: str = "exact",
    method: str = "auto",
    scores: Scores | None = None,
    by: str = "accuracy",
    names: tuple[str, str] = ("", "stand-alone accuracy"),
    ceiling: float | None = None,
    discretization: DiscretizationGap | str = NO_MIXTURE,
    deployment: DeploymentGap | str = ONE_SCALE,
    hypergradient: HypergradientError | str = NO_HYPERGRADIENT,
    resamples: int = 1000,
    seed: int = 0,
) -> GapReport:
    """Measure the optimisation gap of a supernet.

    Args:
        supernet: One of ours; for a foreign one the two callables ``set_active(genotype)`` and ``forward(images)``;
            ``None`` where ``scores`` are given.
        space: Its space.
        genotypes: ``n`` of it, each once.
        truth: Stand-alone accuracies in percent: ``[seeds, n]``, or ``[n]`` with ``ceiling``.
        batches: Images and labels to score on.
        calibration: Batches of images to estimate statistics of batch normalisation on, for each genotype anew;
            ``None`` leaves the running ones (of foreign supernets, statistics are their own matter).
        mode: Of the estimation: ``exact`` or ``batch``.
        method: How to score, see :func:`~ws_nas.evaluation.scoring.score`.
        scores: Scores there are already, instead of a supernet.
        by: Rank by ``accuracy`` or by ``loss``, the lower the better.
        names: What to call scores and truth; an empty name is made up.
        ceiling: Tau-b between seeds of the truth, where the truth has one seed.
        discretization: M3, or why it is not applicable.
        deployment: M4, or why not.
        hypergradient: M5, or why not.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        UserError: If there is no noise ceiling, there are fewer than 10 genotypes, or a value does not fit.
    """
    choose("by", by, ["accuracy", "loss"])
    listed = [space.check(g) for g in genotypes]
    if len(set(listed)) < len(listed):
        twice = next(g for i, g in enumerate(listed) if g in listed[:i])
        raise UserError(f"genotypes holds {space.str(twice)} twice")
    s = np.asarray(truth, dtype=np.float64)
    if s.ndim == 1 and ceiling is None:
        raise UserError(
            "truth has one seed: a tau without a noise ceiling is no evidence; give [seeds, n], or ceiling= where it "
            "is known"
        )
    if s.size and 0 < s.max() <= 1:
        raise UserError(f"truth holds fractions (up to {s.max():g}): accuracies are in percent here")
    notes = []
    label = "accuracy, %" if by == "accuracy" else "-loss"
    if scores is None and supernet is None:
        raise UserError("supernet is not set: give a supernet, or the scores that there are")
    if scores is None and isinstance(supernet, Supernet):
        if supernet.space_id != space.space_id:
            raise UserError(f"the supernet is of space {supernet.space_id}, not of {space.space_id}")
        scores = score(supernet, listed, batches, calibration, mode=mode, method=method)
        statistics = "running statistics" if calibration is None else f"statistics re-estimated ({mode})"
        label = f"inherited {label}, {statistics}"
    if scores is None:
        assert isinstance(supernet, tuple)
        scores = foreign_scores(supernet, listed, batches)
        label = f"inherited {label}"
        notes.append("a foreign supernet: statistics of batch normalisation are as its own forward has them")
    q = 100 * np.asarray(scores.accuracy, dtype=np.float64)
    m1: ValueGap | str = value_gap(q, s.mean(0) if s.ndim == 2 else s, alike=True)
    if by == "loss":
        q = -np.asarray(scores.loss, dtype=np.float64)
    mean = s.mean(0) if s.ndim == 2 else s
    m2 = ranking_gap(
        q, s, ceiling=ceiling, baselines=structural_baselines(space, listed, mean), resamples=resamples, seed=seed
    )
    return GapReport(
        space.name, names[0] or label, names[1], m2, m1, discretization, deployment, hypergradient, tuple(notes)
    )
