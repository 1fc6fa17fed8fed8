"""Share less (few-shot NAS): a super-network trained as one, then split by the choices of one gene."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from effkit.errors import UserError, written
from ws_nas.families.base import generator_of
from ws_nas.families.numbers import number
from ws_nas.families.progress import Progress
from ws_nas.families.uniform import SPOS
from ws_nas.spaces.space import Genotype, Space

__all__ = ["FewShot"]

TRIES = 10_000


class FewShot(SPOS):
    """Few-shot NAS (Zhao et al. 2021): the joint super-network first, then K parts that begin with its weights.

    A step of the joint training trains one uniform path; after the split a step trains one path of every part, each
    uniform over that part's valid genotypes.

    Args:
        space: The space.
        supernet: Its joint super-network.
        seed: Of all that is drawn.
        gene: The gene that is split, by its number.
        groups: Which options of that gene go together, e.g. ``[[0, 1], [2]]``; ``None`` gives each a part of its own.
        joint: Share of the epochs in which there is one super-network.
        **options: As for :class:`SPOS`.

    Raises:
        UserError: If the gene or a group does not exist, or an option is in no group or in two.
    """

    name: ClassVar[str] = "few_shot"

    def __init__(
        self,
        space: Space,
        supernet: nn.Module,
        seed: int = 0,
        *,
        gene: int = 0,
        groups: Sequence[Sequence[int]] | None = None,
        joint: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(space, supernet, seed, **options)
        number(gene, "family.gene", least=0, below=len(space.choices), whole=True)
        number(joint, "family.joint", above=0, below=1)
        count = space.choices[gene]
        chosen = [[k] for k in range(count)] if groups is None else [list(group) for group in groups]
        if sorted(k for group in chosen for k in group) != list(range(count)) or not all(chosen):
            raise UserError(
                f"family.groups={written(groups)} must hold each of the {count} options of gene {gene} once, "
                "e.g. " + str([[k] for k in range(count)])
            )
        if len(chosen) < 2:
            raise UserError(f"family.groups={written(groups)} splits nothing: give at least 2 groups, or family=spos")
        self.gene, self.groups, self.joint = gene, chosen, joint
        self.part_of = {k: number_ for number_, group in enumerate(chosen) for k in group}
        self.parts = nn.ModuleList(copy.deepcopy(supernet) for _ in chosen)
        self.network = nn.ModuleDict({"joint": supernet, "parts": self.parts})
        self.is_split = False

    def begin_epoch(self, progress: Progress) -> None:
        """Split when the joint training is over."""
        super().begin_epoch(progress)
        if not self.is_split and progress.epoch >= max(1, round(self.joint * progress.epochs)):
            for part in self.parts:
                part.load_state_dict(self.supernet.state_dict())
            self.is_split = True

    def paths(self, step: int) -> list[Genotype]:
        """One path, after the split one of every part."""
        if not self.is_split:
            return super().paths(step)
        return [self._of_part(i, generator_of(self.seed, step, i)) for i in range(len(self.groups))]

    def _of_part(self, part: int, generator: torch.Generator) -> Genotype:
        for _ in range(TRIES):
            genotype = self.space.sample(generator)
            if self.part_of[genotype[self.gene]] == part:
                return genotype
        raise UserError(f"family.groups: no valid genotype of space={self.space.name} has {self.groups[part]}")

    def net_of(self, genotype: Genotype) -> nn.Module:
        """The part that owns a genotype; the joint super-network while there is only that."""
        return self.parts[self.part_of[genotype[self.gene]]] if self.is_split else self.supernet

    def state_dict(self) -> dict[str, Any]:
        """Also whether the split is done."""
        return {**super().state_dict(), "is_split": self.is_split}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over."""
        super().load_state_dict(state)
        self.is_split = bool(state["is_split"])
