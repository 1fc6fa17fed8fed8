"""Relaxations that are drawn towards a choice: FairDARTS (sigmoid gates, zero-one loss) and an entropy penalty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ws_nas.families.alphas import mean_entropy
from ws_nas.families.darts import DARTS
from ws_nas.families.numbers import number
from ws_nas.families.progress import ramp
from ws_nas.spaces.space import Space

__all__ = ["EntropyDARTS", "FairDARTS"]


class FairDARTS(DARTS):
    """FairDARTS (Chu et al. 2020): every operation has a gate of its own, sigmoid of its parameter.

    The penalty is ``zero_one * mean of -(gate - 0.5) ** 2``.

    Args:
        space: A space that has a mixture.
        supernet: Its super-network.
        seed: Of all that is drawn.
        zero_one: Weight of the penalty.
        **options: As for :class:`DARTS`.

    Raises:
        UserError: If the weight is below 0.
    """

    name: ClassVar[str] = "fairdarts"

    def __init__(
        self, space: Space, supernet: nn.Module, seed: int = 0, *, zero_one: float = 10.0, **options: Any
    ) -> None:
        super().__init__(space, supernet, seed, **options)
        self.zero_one = float(number(zero_one, "family.zero_one", least=0))

    def probabilities(self, values: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Gates, each in (0, 1) by itself."""
        return [v.sigmoid() for v in (self.alphas.values if values is None else values)]

    def penalty(self) -> Tensor:
        """The zero-one loss."""
        gates = torch.cat([p.flatten() for p in self.probabilities()])
        return self.zero_one * -((gates - 0.5) ** 2).mean()


class EntropyDARTS(DARTS):
    """DARTS with the mean entropy of the edges as a penalty, ramped up from 0 after the warm-up.

    Args:
        space: A space that has a mixture.
        supernet: Its super-network.
        seed: Of all that is drawn.
        entropy_weight: Of the penalty in the last epoch.
        **options: As for :class:`DARTS`.

    Raises:
        UserError: If the weight is below 0.
    """

    name: ClassVar[str] = "entropy"

    def __init__(
        self, space: Space, supernet: nn.Module, seed: int = 0, *, entropy_weight: float = 0.1, **options: Any
    ) -> None:
        super().__init__(space, supernet, seed, **options)
        self.entropy_weight = float(number(entropy_weight, "family.entropy_weight", least=0))

    def penalty(self) -> Tensor:
        """The entropy times its present weight."""
        weight = self.entropy_weight * ramp(self.progress.epoch, self.warmup, self.progress.epochs)
        return weight * mean_entropy(self.probabilities())
