"""Individual search, the baseline of all sharing: every candidate has weights of its own."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from ws_nas.families.base import Batch, Family
from ws_nas.families.numbers import number
from ws_nas.spaces.space import Genotype, Space
from ws_nas.supernets.norm import Collecting

__all__ = ["Individual"]


class Individual(Family):
    """Random search by training: candidates are drawn once, all trained on the same batches, the best is taken.

    Args:
        space: The space.
        supernet: Not used: nothing is shared.
        seed: Of all that is drawn.
        candidates: How many networks.
        **options: As for :class:`Family`.

    Raises:
        UserError: If the space has fewer genotypes.
    """

    name: ClassVar[str] = "individual"

    def __init__(
        self, space: Space, supernet: nn.Module | None, seed: int = 0, *, candidates: int = 8, **options: Any
    ) -> None:
        number(candidates, "family.candidates", least=1, whole=True)
        self.candidates = space.sample_many(candidates, seed)
        self.networks = nn.ModuleList(space.build(genotype) for genotype in self.candidates)
        super().__init__(space, self.networks, seed, **options)

    def paths(self, step: int) -> list[Genotype]:
        """All candidates."""
        return list(self.candidates)

    def net_of(self, genotype: Genotype) -> nn.Module:
        """A candidate's own network.

        Raises:
            UserError: If it is no candidate: nothing was trained that it could inherit.
        """
        if genotype not in self.candidates:
            raise UserError(
                f"genotype={self.space.str(genotype)} was not trained: family=individual shares no weights, and has "
                f"those of its {len(self.candidates)} candidates only"
            )
        return self.networks[self.candidates.index(genotype)]

    def training_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Train every candidate on the batch."""
        losses = []
        for genotype, network in zip(self.candidates, self.networks, strict=True):
            loss = self.finite(self.loss(network(batch.images), batch.labels), genotype)
            loss.backward()
            losses.append(loss.detach())
        return {"loss": sum(losses[1:], losses[0]) / len(losses)}

    @torch.no_grad()
    def shown(self, images: Tensor) -> list[Tensor]:
        """Logits of all candidates."""
        with Collecting():
            return [network(images) for network in self.networks]

    def derive(self) -> Genotype:
        """The best candidate; the first of equal ones."""
        scores = self.score(self.candidates)
        return self.candidates[max(range(len(scores)), key=lambda i: (scores[i], -i))]
