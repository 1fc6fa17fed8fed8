"""M3, the discretisation gap: what a soft supernet loses when each edge keeps one operation only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from effkit.errors import UserError

__all__ = ["DiscretizationGap", "compare_losses", "discretization_gap"]

_CLOSE = 0.01  # top two probabilities nearer than this: the choice is a coin's


@dataclass(frozen=True)
class DiscretizationGap:
    """Losses before and after the choice, both without re-training.

    Attributes:
        soft: Validation loss under the mixture.
        hard: Under the derived architecture.
        gap: ``hard - soft``.
        entropy: Mean entropy of the probabilities, nats an edge.
        relative_entropy: The same over the largest possible, 0 to 1.
        close: Share of edges whose top two probabilities differ by less than 0.01.
    """

    soft: float
    hard: float
    gap: float
    entropy: float
    relative_entropy: float
    close: float


def discretization_gap(
    loss: Callable[[list[Tensor]], float],
    probabilities: Sequence[Tensor],
    derive: Callable[[Sequence[Tensor]], Sequence[int]] | None = None,
) -> DiscretizationGap:
    """M3: the loss of the mixture beside that of what is derived from it.

    Args:
        loss: Validation loss for weights of the operations, one vector an edge; batch statistics are to be re-estimated
            for each, or both losses are of other networks than those that would be used.
        probabilities: Of the operations of each edge, ``[ops]``, non-negative, sum 1.
        derive: The chosen operation of each edge; by default the likeliest, of equally likely ones the first.

    Raises:
        UserError: If probabilities are none, a loss is not finite, or a choice does not exist.
    """
    pi = _checked(probabilities)
    # max over a vector may return any of equal values; the first is asked for.
    chosen = [int((p == p.max()).nonzero()[0, 0]) for p in pi] if derive is None else [int(c) for c in derive(pi)]
    if len(chosen) != len(pi):
        raise UserError(f"derive returned {len(chosen)} choices for {len(pi)} edges")
    for edge, (c, p) in enumerate(zip(chosen, pi, strict=True)):
        if not 0 <= c < len(p):
            raise UserError(f"derive chose operation {c} of edge {edge}, which has {len(p)}")
    one_hot = [torch.nn.functional.one_hot(torch.tensor(c), len(p)).to(p) for c, p in zip(chosen, pi, strict=True)]
    kinds = [p.dtype for p in probabilities]
    soft, hard = (
        float(loss([x.to(kind) for x, kind in zip(weights, kinds, strict=True)])) for weights in (pi, one_hot)
    )
    return compare_losses(soft, hard, pi)


def compare_losses(soft: float, hard: float, probabilities: Sequence[Tensor]) -> DiscretizationGap:
    """M3 of two losses that are known.

    Args:
        soft: Validation loss of the mixture, statistics re-estimated.
        hard: Of what is derived from it, without re-training, statistics re-estimated.
        probabilities: Of the operations of each edge, ``[ops]``.

    Raises:
        UserError: If probabilities are none, or a loss is not finite.
    """
    pi = _checked(probabilities)
    for name, value in (("mixture", soft), ("derived architecture", hard)):
        if not math.isfinite(value):
            raise UserError(f"the validation loss of the {name} is {value}")
    # -p log p is 0 at 0 by its limit
    entropies = [float(-(p * p.clamp_min(1e-300).log()).sum()) for p in pi]
    largest = math.fsum(math.log(len(p)) for p in pi)
    tops = [p.topk(2).values for p in pi if len(p) > 1]
    close = sum(float(t[0] - t[1]) < _CLOSE for t in tops) / len(pi)
    total = math.fsum(entropies)
    return DiscretizationGap(soft, hard, hard - soft, total / len(pi), total / largest if largest else 0.0, close)


def _checked(probabilities: Sequence[Tensor]) -> list[Tensor]:
    pi = [p.detach().to(torch.float64) for p in probabilities]
    if not pi:
        raise UserError("probabilities is empty: give one vector an edge")
    for edge, p in enumerate(pi):
        if p.ndim != 1 or not len(p) or bool((p < 0).any()) or not math.isclose(float(p.sum()), 1, abs_tol=1e-4):
            raise UserError(f"probabilities[{edge}]={p.tolist()} are none: they must be a vector, >= 0, with sum 1")
    return pi
