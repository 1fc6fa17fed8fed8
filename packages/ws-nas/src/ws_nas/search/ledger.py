"""What a search has evaluated: nothing twice, nothing beyond a limit, and no score that is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from effkit.errors import UserError
from ws_nas.search.limits import Limit
from ws_nas.spaces.space import Genotype, Space

__all__ = ["Ledger", "Scorer", "SearchResult", "Trial"]

Scorer = Callable[[list[Genotype]], Sequence[float]]

_COUNTED = 20_000  # genotypes up to which all are looked at once, so that it is known which are within the limits
_TRIES = 1_000  # draws for one new genotype, where they are not


@dataclass(frozen=True)
class Trial:
    """One evaluated architecture.

    Attributes:
        genotype: The architecture.
        score: Larger is better.
        costs: What was limited or traded, by name.
    """

    genotype: Genotype
    score: float
    costs: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: Of all evaluated; of equal scores the first.
        history: In the order of evaluation, nothing twice.
        front: What no other evaluated architecture beats in score and cost alike, by cost; empty with one goal.
        message: Why it ended before its budget; empty if it did not.
    """

    best: Trial
    history: tuple[Trial, ...]
    front: tuple[Trial, ...] = ()
    message: str = ""


class Ledger:
    """Asks a scorer, and keeps what it answered.

    Args:
        space: Searched.
        score: Scores a list of genotypes.
        budget: Evaluations at most.
        limits: None may be exceeded.
        extra: Costs to keep beside those of the limits, by name.

    Raises:
        UserError: If the budget is no whole number above 0, or nothing is within the limits.
    """

    def __init__(
        self, space: Space, score: Scorer, budget: int, limits: Sequence[Limit], extra: Sequence[Limit] = ()
    ) -> None:
        if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
            raise UserError(f"budget={budget!r} must be a whole number of evaluations, at least 1")
        self.space, self.limits, self.extra = space, tuple(limits), tuple(extra)
        self._score, self.budget = score, budget
        self.trials: dict[Genotype, Trial] = {}
        self._open: list[Genotype] | None = None
        if space.size() <= _COUNTED:
            self._open = [g for g in space if space.is_valid(g) and self.feasible(g)]
            if not self._open:
                least = {m.name: min(m.of(g) for g in space if space.is_valid(g)) for m in self.limits}
                raise self._nothing("none of its genotypes is", least)

    def feasible(self, genotype: Genotype) -> bool:
        """Whether a genotype is within all limits."""
        return all(limit.of(genotype) <= limit.most for limit in self.limits)

    @property
    def left(self) -> int:
        """Evaluations left: of the budget, and of the genotypes that are within the limits."""
        left = self.budget - len(self.trials)
        return left if self._open is None else min(left, len(self._open) - len(self.trials))

    @property
    def message(self) -> str:
        """Why the search ends before its budget."""
        if self._open is not None and len(self.trials) == len(self._open) < self.budget:
            found = len(self._open)
            return f"all {found} genotypes within the limits were evaluated, before budget={self.budget} was spent"
        if len(self.trials) < self.budget:
            return (
                f"no new genotype within the limits was drawn in {_TRIES} tries, after {len(self.trials)} evaluations"
            )
        return ""

    def new(self, make: Callable[[], Genotype], taken: Sequence[Genotype] = (), tries: int = 20) -> Genotype | None:
        """A genotype that is within the limits and neither evaluated nor taken.

        Args:
            make: Draws one.
            taken: Not to be drawn.
            tries: How often it may draw.

        Returns:
            ``None`` if no draw gave one.
        """
        for _ in range(tries):
            one = self.space.canonical(make()) if self._folds else make()
            if one not in self.trials and one not in taken and self.feasible(one):
                return one
        return None

    def random(self, generator: torch.Generator, taken: Sequence[Genotype] = ()) -> Genotype | None:
        """A new genotype within the limits, uniformly; ``None`` if there is none left, or none could be drawn.

        Raises:
            UserError: If none was found within the limits at all.
        """
        if self._open is not None:
            closed = {*self.trials, *taken}
            rest = [g for g in self._open if g not in closed]
            return rest[int(torch.randint(len(rest), (), generator=generator))] if rest else None
        seen: list[Genotype] = []

        def draw() -> Genotype:
            seen.append(self.space.sample(generator))
            return seen[-1]

        found = self.new(draw, taken, _TRIES)
        if found is None and not self.trials and not taken:
            least = {m.name: min(m.of(g) for g in seen) for m in self.limits}
            raise self._nothing(f"none of {_TRIES} random genotypes is", least)
        return found

    def evaluate(self, genotypes: Sequence[Genotype]) -> list[Trial]:
        """Score genotypes, as many as are left.

        Raises:
            UserError: If the scorer returns another number of scores, or one that is no finite number.
        """
        asked = list(genotypes)[: self.left]
        if not asked:
            return []
        scores = list(self._score(asked))
        if len(scores) != len(asked):
            raise UserError(f"the scorer returned {len(scores)} scores for {len(asked)} genotypes")
        found = []
        for genotype, score in zip(asked, scores, strict=True):
            if not math.isfinite(score):
                raise UserError(f"the score of {self.space.str(genotype)} is {score}, it must be a finite number")
            costs = {m.name: float(m.of(genotype)) for m in (*self.limits, *self.extra)}
            found.append(Trial(genotype, float(score), costs))
            self.trials[genotype] = found[-1]
        return found

    def result(self, front: Sequence[Trial] = ()) -> SearchResult:
        """What was found."""
        history = tuple(self.trials.values())
        return SearchResult(max(history, key=lambda t: t.score), history, tuple(front), self.message)

    @property
    def _folds(self) -> bool:
        # Spaces too large to be listed have many genotypes of the same network; tables list each for itself.
        return self._open is None

    def _nothing(self, what: str, least: dict[str, float]) -> UserError:
        limits = ", ".join(f"limit.{m.name} <= {m.most:g} (least {least[m.name]:g})" for m in self.limits)
        return UserError(f"space={self.space.name}: {what} within {limits}")
