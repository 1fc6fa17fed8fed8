"""Temperatures that make a classifier's probabilities honest, and how honest they are.

A classifier that is right but too sure of itself would seem to know less about the label than it does, so label
information is taken at the temperature of least cross-entropy. That temperature is never fitted on the picture it is
used for: pictures are divided in two folds, and each fold is read at the temperature of the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from effkit.errors import UserError

__all__ = ["Reliability", "cross_fitted_temperature", "fit_temperature", "reliability"]

COLDEST, HOTTEST = 0.05, 100.0


def fit_temperature(logits: Tensor, labels: Tensor, steps: int = 60) -> float:
    """Temperature of least mean cross-entropy, within 0.05..100.

    The cross-entropy is convex in 1/T, and its derivative ``E[E_p[z] - z_y]`` is halved in until it vanishes; the
    bounds are returned where it does not (all answers right, or none better than chance).

    Args:
        logits: ``(m, C)``.
        labels: ``(m,)``.
        steps: Bisections.
    """
    z = logits.double()
    z = z - z.mean(-1, keepdim=True)
    chosen = z.gather(-1, labels[:, None]).squeeze(-1)
    low, high = 1 / HOTTEST, 1 / COLDEST

    def slope(beta: float) -> float:
        return float(((torch.softmax(beta * z, -1) * z).sum(-1) - chosen).mean())

    if slope(low) >= 0:
        return HOTTEST
    if slope(high) <= 0:
        return COLDEST
    for _ in range(steps):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if slope(middle) >= 0 else (middle, high)
        if high / low < 1 + 1e-7:
            break
    return 1 / (low * high) ** 0.5


def cross_fitted_temperature(views: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
    """A temperature for every picture, fitted on the views of the pictures of the other fold.

    Args:
        views: ``(n, r, C)``.
        labels: ``(n,)``.
        seed: Of the division in two folds, class by class.

    Returns:
        Float64 ``(n,)``; 1 everywhere if there are fewer than 4 pictures, too few to hold any out.
    """
    n, draws, classes = views.shape
    if n < 4:
        return torch.ones(n, dtype=torch.float64)
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[torch.argsort(labels.cpu()[shuffled], stable=True)]
    fold = torch.empty(n, dtype=torch.int64)
    fold[by_class] = torch.arange(n) % 2
    fold = fold.to(views.device)
    temperature = torch.empty(n, dtype=torch.float64)
    for number in (0, 1):
        other = fold != number
        fitted = fit_temperature(views[other].reshape(-1, classes), labels[other].repeat_interleave(draws))
        temperature[(fold == number).cpu()] = fitted
    return temperature


@dataclass(frozen=True)
class Reliability:
    """Answers binned by how sure they were; ``count``, ``confidence`` and ``accuracy`` are lists over bins.

    ``error`` is the expected calibration error: the distance of accuracy and confidence, weighted by counts.
    """

    count: list[int]
    confidence: list[float]
    accuracy: list[float]
    error: float


def reliability(views: Tensor, labels: Tensor, bins: int = 10) -> Reliability:
    """How often answers of a given confidence are right.

    Args:
        views: ``(n, r, C)``.
        labels: ``(n,)``.
        bins: Equal bins of 0..1.

    Raises:
        UserError: If ``bins`` is below 1.
    """
    if bins < 1:
        raise UserError(f"bins={bins!r} must be at least 1")
    sure, answer = torch.softmax(views.double(), -1).flatten(0, 1).max(-1)
    right = (answer == labels.repeat_interleave(views.shape[1])).double()
    which = (sure * bins).long().clamp(max=bins - 1)
    count = torch.bincount(which, minlength=bins)
    total = count.clamp(min=1)
    confidence = torch.bincount(which, sure, minlength=bins) / total
    accuracy = torch.bincount(which, right, minlength=bins) / total
    error = float(((accuracy - confidence).abs() * count).sum() / count.sum())
    return Reliability(count.tolist(), confidence.tolist(), accuracy.tolist(), error)
