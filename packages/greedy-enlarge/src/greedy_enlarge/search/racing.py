"""Successive halving of the candidates of a step: a third goes on, with three times the samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

from effkit.errors import UserError

__all__ = ["Racing"]


@dataclass(frozen=True)
class Racing:
    """Rungs in training samples.

    Args:
        samples: Samples that a candidate has seen at the end of each rung, increasing.
        keep: Share of the candidates that go on to the next rung, at least two.
    """

    samples: tuple[int, ...]
    keep: float = 1 / 3

    def __post_init__(self) -> None:
        whole = all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in self.samples)
        if not self.samples or not whole or list(self.samples) != sorted(set(self.samples)):
            raise UserError(f"racing.samples={list(self.samples)} must be increasing whole numbers of at least 1")
        if isinstance(self.keep, bool) or not isinstance(self.keep, int | float) or not 0 < self.keep < 1:
            raise UserError(f"racing.keep={self.keep!r} must be above 0 and below 1")

    def survivors(self, candidates: int) -> int:
        """How many of so many candidates go on."""
        return min(candidates, max(2, math.ceil(candidates * self.keep)))

    def total(self, candidates: int) -> int:
        """Samples that a step costs, each candidate going on from where it was."""
        total = before = 0
        for samples in self.samples:
            total += candidates * (samples - before)
            before, candidates = samples, self.survivors(candidates)
        return total
