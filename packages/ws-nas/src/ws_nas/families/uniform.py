"""Single paths drawn uniformly (SPOS): what is drawn does not depend on what was learnt."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from ws_nas.families.base import Batch, Family, generator_of
from ws_nas.families.searching import SearchOptions, best_of, within_limit
from ws_nas.spaces.space import Genotype, Space

__all__ = ["SPOS"]


class SPOS(Family):
    """Single path one-shot with uniform sampling (Guo et al. 2019): one valid genotype a step, then a search.

    Genotypes that are not valid are drawn anew, not repaired: what is drawn is uniform over the valid ones.

    Args:
        space: The space.
        supernet: Its super-network.
        seed: Of all that is drawn.
        search: How :meth:`derive` searches.
        **options: As for :class:`Family`.
    """

    name: ClassVar[str] = "spos"

    def __init__(
        self, space: Space, supernet: nn.Module, seed: int = 0, *, search: SearchOptions | None = None, **options: Any
    ) -> None:
        super().__init__(space, supernet, seed, **options)
        self.search = search or SearchOptions()
        within_limit(space, self.search)  # a limit that nothing keeps is told before the training

    def paths(self, step: int) -> list[Genotype]:
        """One uniform draw."""
        return [self.space.sample(generator_of(self.seed, step, 0))]

    def training_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Train the paths of the step, their gradients summed."""
        losses = []
        for genotype in self.paths(step):
            loss = self.path_loss(genotype, batch)
            loss.backward()
            losses.append(loss.detach())
        return {"loss": sum(losses[1:], losses[0]) / len(losses)}

    def derive(self) -> Genotype:
        """The best that a search among sub-networks finds."""
        return best_of(self.space, self.score, self.search, self.seed)
