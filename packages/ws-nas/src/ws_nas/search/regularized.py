"""Regularised evolution (Real et al., AAAI 2019): tournaments, one mutation at a time, and the oldest dies."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from effkit.errors import UserError
from ws_nas.search.ledger import Ledger, Scorer, SearchResult, Trial
from ws_nas.search.limits import Limit, make_limits
from ws_nas.spaces.space import Genotype, Space, as_generator

__all__ = ["RegularizedEvolution"]


@dataclass(frozen=True)
class RegularizedEvolution:
    """Evolution with ageing.

    Attributes:
        population: Architectures alive.
        tournament: Drawn from them, without replacement; the best is the parent.
        p: Probability that a gene mutates; at least one does.

    Raises:
        UserError: If a size does not fit.
    """

    population: int = 20
    tournament: int = 10
    p: float = 0.1

    def __post_init__(self) -> None:
        for name, most in (("population", None), ("tournament", self.population)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (most and value > most):
                raise UserError(
                    f"{name}={value!r} must be a whole number from 1" + (f" to population={most}" if most else "")
                )

    def run(
        self, space: Space, score: Scorer, budget: int, limit: Mapping[str, Any] | Sequence[Limit] | None = None,
        seed: int = 0,
    ) -> SearchResult:  # fmt: skip
        """Search; arguments as those of :class:`~ws_nas.search.random_search.RandomSearch`.

        Raises:
            UserError: If nothing is within the limits, or a score is no finite number.
        """
        ledger, generator = Ledger(space, score, budget, make_limits(space, limit)), as_generator(seed)
        first: list[Genotype] = []
        while len(first) < min(self.population, ledger.left):
            one = ledger.random(generator, first)
            if one is None:
                break
            first.append(one)
        alive: deque[Trial] = deque(ledger.evaluate(first), maxlen=self.population)
        while ledger.left > 0 and alive:
            drawn = torch.randperm(len(alive), generator=generator)[: self.tournament].tolist()
            ranked = sorted((alive[i] for i in sorted(drawn)), key=lambda t: -t.score)  # of equal ones the oldest
            child = None
            for parent in ranked:  # the best may have no neighbour left
                child = ledger.new(partial(space.mutate, parent.genotype, generator, self.p))
                if child is not None:
                    break
            if child is None:
                child = ledger.random(generator)
            if child is None:
                break
            alive.extend(ledger.evaluate([child]))
        return ledger.result()
