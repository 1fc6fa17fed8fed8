"""Scores of many sub-networks of a supernet, each with statistics of its own."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Scores"]


class Scores(NamedTuple):
    """Scores in the order of the genotypes.

    Attributes:
        accuracy: (G,) share of right answers, float64.
        loss: (G,) mean cross entropy, float64.
    """

    accuracy: Tensor
    loss: Tensor
