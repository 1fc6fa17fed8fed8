"""The search that follows a training: every sub-network where there are few, else evolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from effkit.errors import UserError, written
from ws_nas.families.numbers import number
from ws_nas.search.constrained import ConstrainedEvolution
from ws_nas.search.limits import make_limits
from ws_nas.spaces.space import Genotype, Space

__all__ = ["SearchOptions", "best_of", "within_limit"]


@dataclass(frozen=True)
class SearchOptions:
    """How a family looks for its genotype; the evolution is that of SPOS.

    Args:
        exhaustive: Spaces of so many genotypes or fewer are scored whole.
        population: Genotypes of a generation.
        parents: The best that have children.
        generations: Of the evolution.
        p: Probability that a gene mutates.
        limit: The most of a cost by name, e.g. ``{"macs": 50e6}``.

    Raises:
        UserError: If a value is out of range.
    """

    exhaustive: int = 1000
    population: int = 50
    parents: int = 10
    generations: int = 20
    p: float = 0.1
    limit: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        number(self.exhaustive, "family.search.exhaustive", least=0, whole=True)
        number(self.population, "family.search.population", least=2, whole=True)
        number(self.parents, "family.search.parents", least=1, most=self.population, whole=True)
        number(self.generations, "family.search.generations", least=1, whole=True)
        number(self.p, "family.search.p", above=0, most=1)


def within_limit(space: Space, options: SearchOptions) -> list[Genotype] | None:
    """All valid genotypes within the limit, in order; ``None`` where there are too many to look at.

    Raises:
        UserError: If there is none.
    """
    limits = make_limits(space, options.limit)
    if space.size() > options.exhaustive:
        return None
    found = [g for g in space if space.is_valid(g) and all(limit.of(g) <= limit.most for limit in limits)]
    if not found:
        raise UserError(
            f"family.search.limit={written(dict(options.limit or {}))}: no genotype of space={space.name} is within it"
        )
    return found


def best_of(
    space: Space, score: Callable[[list[Genotype]], list[float]], options: SearchOptions, seed: int
) -> Genotype:
    """The genotype of the highest score that is found.

    Args:
        space: Where to look.
        score: Scores genotypes.
        options: How to look.
        seed: Of the evolution.

    Returns:
        The best; of equal ones the first in the order of the space, or of the evolution.

    Raises:
        UserError: If nothing is within the limit.
    """
    within = within_limit(space, options)
    if within is None:
        search = ConstrainedEvolution(options.population, options.parents, options.p)
        found = search.run(space, score, options.population * options.generations, options.limit, seed)
        return found.best.genotype
    scores = score(within)
    return within[max(range(len(within)), key=lambda i: (scores[i], -i))]
