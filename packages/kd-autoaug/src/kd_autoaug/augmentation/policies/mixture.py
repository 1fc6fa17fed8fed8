"""AugMix: several chains of operators on a picture, averaged by random weights, and blended with the picture itself.

Weights and blend are those of timm at its default ``alpha`` of 1. The weights, a flat Dirichlet draw, are the gaps
between sorted uniform numbers: exact, so that all devices have the same bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kd_autoaug.augmentation import rng
from kd_autoaug.ops.layers import Layer
from kd_autoaug.ops.operators import Op
from kd_autoaug.ops.tables import blend

__all__ = ["LONGEST", "STREAM", "Mixture", "mixed"]

STREAM = 1  # beside that of the crop; those of layers begin at 16
LONGEST = 3  # operators of a chain whose length is drawn


@dataclass(frozen=True)
class Mixture:
    """How chains are mixed.

    Attributes:
        width: Chains.
        depth: Operators of each chain; 0: 1 to 3, drawn for each.
    """

    width: int
    depth: int

    @property
    def longest(self) -> int:
        """Operators that a chain has at most."""
        return self.depth or LONGEST

    def words(self, seed: int, index: Tensor, view: Tensor | int, backend: str = "torch") -> Tensor:
        """What the mixing is drawn from, int64 ``(2 * width, B)``: the blend, the weights, the lengths."""
        return rng.words_of(seed, index, view, (STREAM,), 2 * self.width, backend)[0]

    def shares(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Share of the mixed picture, float32 ``(B,)``, and weights of the chains, float32 ``(width, B)``."""
        cuts = rng.uniform(words[1 : self.width]).sort(0).values  # (width - 1, B)
        ends = torch.cat([torch.zeros_like(words[:1], dtype=torch.float64), cuts, torch.ones_like(words[:1]).double()])
        return rng.uniform(words[0]).float(), ends.diff(dim=0).float()

    def shortened(self, layers: Sequence[Layer], words: Tensor) -> list[Layer]:
        """The layers with the identity where a chain has ended already."""
        if self.depth:
            return list(layers)
        lengths = 1 + rng.integers(words[self.width :], LONGEST)  # (width, B)
        return [
            dataclasses.replace(layer, op=torch.where(n % LONGEST < lengths[n // LONGEST], layer.op, int(Op.IDENTITY)))
            for n, layer in enumerate(layers)
        ]


def mixed(
    images: Tensor,
    layers: Sequence[Layer],
    mixture: Mixture,
    words: Tensor,
    run: Callable[[Tensor, Sequence[Layer]], Tensor],
) -> Tensor:
    """Mix the chains of every picture.

    Args:
        images: uint8 ``(B, C, H, W)``.
        layers: Chain after chain.
        mixture: How many and how long they are.
        words: See :meth:`Mixture.words`.
        run: Applies layers to pictures.

    Returns:
        uint8 ``(B, C, H, W)``.
    """
    share, weights = mixture.shares(words)
    total = torch.zeros(images.shape, dtype=torch.float32, device=images.device)
    for chain in range(mixture.width):
        done = run(images, layers[chain * mixture.longest : (chain + 1) * mixture.longest])
        total += weights[chain].view(-1, 1, 1, 1) * done.float()  # two roundings, as in numpy
    whole = total.clamp_(0, 255).to(torch.uint8)
    return blend(images.float(), whole.float(), share.view(-1, 1, 1, 1))
