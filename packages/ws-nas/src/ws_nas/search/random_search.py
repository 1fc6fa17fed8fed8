"""Random search: the baseline that every other search has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effkit.errors import UserError
from ws_nas.search.ledger import Ledger, Scorer, SearchResult
from ws_nas.search.limits import Limit, make_limits
from ws_nas.spaces.space import Genotype, Space, as_generator

__all__ = ["RandomSearch"]


@dataclass(frozen=True)
class RandomSearch:
    """Draw genotypes uniformly, each once, and keep the best.

    Attributes:
        batch: Genotypes that the scorer gets at a time.

    Raises:
        UserError: If it is no whole number above 0.
    """

    batch: int = 50

    def __post_init__(self) -> None:
        if isinstance(self.batch, bool) or not isinstance(self.batch, int) or self.batch < 1:
            raise UserError(f"batch={self.batch!r} must be a whole number of at least 1")

    def run(
        self, space: Space, score: Scorer, budget: int, limit: Mapping[str, Any] | Sequence[Limit] | None = None,
        seed: int = 0,
    ) -> SearchResult:  # fmt: skip
        """Search.

        Args:
            space: Searched.
            score: Scores a list of genotypes, larger is better.
            budget: Evaluations at most.
            limit: Name to the most, see :func:`~ws_nas.search.limits.make_limits`.
            seed: Of the draws.

        Raises:
            UserError: If nothing is within the limits, or a score is no finite number.
        """
        ledger, generator = Ledger(space, score, budget, make_limits(space, limit)), as_generator(seed)
        while ledger.left > 0:
            batch: list[Genotype] = []
            while len(batch) < min(self.batch, ledger.left):
                one = ledger.random(generator, batch)
                if one is None:
                    break
                batch.append(one)
            if not batch:
                break
            ledger.evaluate(batch)
        return ledger.result()
