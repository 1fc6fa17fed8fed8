"""Strict fairness (FairNAS): every choice of every layer is trained exactly once a step."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from effkit.errors import UserError
from ws_nas.families.base import generator_of
from ws_nas.families.uniform import SPOS
from ws_nas.spaces.space import Genotype, Space

__all__ = ["FairNAS", "fair_paths"]

TRIES = 1000
"""Draws of permutations after which a space is held to have no fair step."""


def fair_paths(space: Space, generator: torch.Generator) -> list[Genotype]:
    """As many genotypes as a layer has choices, which together use every choice of every layer once.

    One random permutation of the choices a layer; the j-th genotype takes entry j of each. Where one of them is not
    valid, all permutations are drawn anew: a single one that is replaced would break the fairness.

    Args:
        space: All its genes have equally many choices.
        generator: Draws.

    Raises:
        UserError: If they have not, or a thousand draws all held a genotype that is not valid.
    """
    counts = sorted(set(space.choices))
    if len(counts) != 1:
        raise UserError(
            f"family=fairnas needs equally many choices in every layer, those of space={space.name} have "
            f"{', '.join(map(str, counts))}: use family=spos"
        )
    for _ in range(TRIES):
        orders = [torch.randperm(counts[0], generator=generator).tolist() for _ in space.choices]
        found = [tuple(order[j] for order in orders) for j in range(counts[0])]
        if all(space.is_valid(genotype) for genotype in found):
            return found
    raise UserError(f"family=fairnas found no {counts[0]} valid genotypes of space={space.name} in {TRIES} draws")


class FairNAS(SPOS):
    """Strictly fair sampling (Chu et al. 2019): m passes on the same batch, gradients summed, one optimizer step.

    Args:
        space: A space whose genes have equally many choices.
        supernet: Its super-network.
        seed: Of all that is drawn.
        **options: As for :class:`SPOS`.

    Raises:
        UserError: If the choices are not equally many.
    """

    name: ClassVar[str] = "fairnas"

    def __init__(self, space: Space, supernet: nn.Module, seed: int = 0, **options: Any) -> None:
        super().__init__(space, supernet, seed, **options)
        self.paths(0)

    def paths(self, step: int) -> list[Genotype]:
        """The m genotypes of a step."""
        return fair_paths(self.space, generator_of(self.seed, step, 0))
