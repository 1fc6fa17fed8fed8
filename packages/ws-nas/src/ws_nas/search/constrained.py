"""Evolution under limits: generations of mutations and crossovers (SPOS), and NSGA-II where a cost is traded too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from effkit.errors import UserError
from ws_nas.meters.tables.latency import LatencyTable
from ws_nas.search.fronts import crowding, fronts
from ws_nas.search.ledger import Ledger, Scorer, SearchResult, Trial
from ws_nas.search.limits import Limit, cost_of, make_limits
from ws_nas.spaces.space import Genotype, Space, as_generator

__all__ = ["ConstrainedEvolution"]


@dataclass(frozen=True)
class ConstrainedEvolution:
    """Generations of new architectures from the best so far.

    With one goal: the ``parents`` best of all so far; half of a generation are mutations of them, half crossovers, the
    rest is drawn at random. With two (NSGA-II, Deb et al. 2002): parents win tournaments by front, then by crowding;
    children are mutated crossovers; the next generation is the best of parents and children.

    Attributes:
        population: Architectures of a generation.
        parents: The best that have children; one goal only.
        p: Probability that a gene mutates; at least one does.
        trade: A cost to make small beside making the score large; ``None`` for one goal.
        latency: For limits and trades of ``latency_ms``.

    Raises:
        UserError: If a size does not fit.
    """

    population: int = 50
    parents: int = 10
    p: float = 0.1
    trade: str | None = None
    latency: LatencyTable | Mapping[Genotype, float] | None = None

    def __post_init__(self) -> None:
        for name, least, most in (("population", 2, None), ("parents", 1, self.population)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least or (most and value > most):
                raise UserError(
                    f"{name}={value!r} must be a whole number from {least}" + (f" to population={most}" if most else "")
                )

    def run(
        self, space: Space, score: Scorer, budget: int, limit: Mapping[str, Any] | Sequence[Limit] | None = None,
        seed: int = 0,
    ) -> SearchResult:  # fmt: skip
        """Search; arguments as those of :class:`~ws_nas.search.random_search.RandomSearch`.

        Returns:
            With two goals, also the front of all that was evaluated.

        Raises:
            UserError: If nothing is within the limits, or a score is no finite number.
        """
        limits = make_limits(space, limit, self.latency)
        extra = (
            [] if self.trade is None else [Limit(self.trade, float("inf"), cost_of(space, self.trade, self.latency))]
        )
        ledger, generator = Ledger(space, score, budget, limits, extra), as_generator(seed)
        alive: list[Trial] = []
        while ledger.left > 0:
            size = min(self.population, ledger.left)
            children = self._children(ledger, alive, size, generator)
            while len(children) < size:
                one = ledger.random(generator, children)
                if one is None:
                    break
                children.append(one)
            if not children:
                break
            alive = self._survivors([*alive, *ledger.evaluate(children)])
        if self.trade is None:
            return ledger.result()
        everything = list(ledger.trials.values())
        best = fronts(_goals(everything, self.trade))[0]
        return ledger.result(sorted((everything[i] for i in best), key=lambda t: t.costs[str(self.trade)]))

    def _survivors(self, trials: list[Trial]) -> list[Trial]:
        if self.trade is None:
            return sorted(trials, key=lambda t: -t.score)[: self.parents]
        goals, kept = _goals(trials, self.trade), list[Trial]()
        for front in fronts(goals):
            apart = crowding([goals[i] for i in front])
            kept += [trials[i] for _, i in sorted(zip(apart, front, strict=True), key=lambda pair: -pair[0])]
        return kept[: self.population]  # in order of rank and crowding: tournaments compare places

    def _children(
        self, ledger: Ledger, alive: list[Trial], size: int, generator: torch.Generator
    ) -> list[Genotype]:  # fmt: skip
        space, found = ledger.space, list[Genotype]()
        if not alive:
            return found

        def pick() -> Genotype:
            if self.trade is None:
                return alive[int(torch.randint(len(alive), (), generator=generator))].genotype
            return alive[int(torch.randint(len(alive), (2,), generator=generator).min())].genotype

        def mutated() -> Genotype:
            return space.mutate(pick(), generator, self.p)

        def crossed() -> Genotype:
            return space.crossover(pick(), pick(), generator)

        def both() -> Genotype:
            return space.mutate(crossed(), generator, self.p)

        # Attempts are capped at ten for each wanted child, so that a tight limit ends instead of hanging.
        plan = [(both, size)] if self.trade is not None else [(mutated, size // 2), (crossed, size - size // 2)]
        for make, number in plan:
            for _ in range(number):
                one = ledger.new(make, found, tries=10)
                if one is not None:
                    found.append(one)
        return found


def _goals(trials: Sequence[Trial], trade: str) -> list[tuple[float, float]]:
    """Score and negative cost: both are to be large."""
    return [(t.score, -t.costs[trade]) for t in trials]
