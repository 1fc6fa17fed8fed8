"""Drawing what a policy does to one picture, in plain numbers: the draws of :class:`~.sampling.Sampler`, one by one.

Every line is the same operation on the same float64 or integer as there, so that a picture alone gets the bits it gets
in a batch.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate

import torch

from kd_autoaug.augmentation import rng
from kd_autoaug.augmentation.policies.arguments_single import arguments_of
from kd_autoaug.augmentation.policies.boxes import box_of
from kd_autoaug.augmentation.policies.sampling import Sampler
from kd_autoaug.augmentation.policies.space import LawSpace
from kd_autoaug.ops.operators import Op
from kd_autoaug.ops.single import Step

__all__ = ["SingleSampler", "Words"]

_WORD = 2.0**-32
_NO_BOX = (0, 0, 0, 0)
_IDENTITY, _CUTOUT, _BLUR = int(Op.IDENTITY), int(Op.CUTOUT), int(Op.GAUSSIAN_BLUR)  # plain: compared for each picture
Words = tuple[tuple[int, ...], tuple[int, ...]]


class SingleSampler:
    """A policy's table as lists.

    Attributes:
        streams: Those of the layers.
        blocks: Of four words, that a layer draws.
    """

    def __init__(self, table: Sampler) -> None:
        """Compile what has been compiled to tensors.

        Args:
            table: The sampler of batches.
        """
        policy = table.policy
        self.mixture = policy.mixture
        self.space, self.noise = policy.space, policy.noise
        self.layers, self.slots, self.bins = policy.num_layers, table.slots, table.bins
        self.rows, self.draws, self.random_bin = len(policy.rows), bool(policy.draws), policy.random_bin
        self.streams = tuple(rng.LAYERS + layer for layer in range(self.layers))
        self.blocks = table.words // 4
        self.ops = [int(op) for op in table.ops]
        constant = table.constant
        self.thresholds: list[float] = constant["threshold"].tolist()
        self.levels: list[float] = constant["level"].tolist()
        self.kinds: list[int] = constant["interpolation"].tolist()
        self.weights: list[int] | None = constant["weight"].tolist() if "weight" in constant else None
        self.arguments = arguments_of(table)
        if self.noise is not None:
            assert isinstance(self.space, LawSpace)
            self.laws = [self.space.laws[op] for op in table.ops]
            self.denominator = self.space.denominator
            self.quantiles = rng.quantiles(torch.device("cpu")).numpy().data  # read as plain numbers

    def steps(
        self, words: Words, size: tuple[int, int], blocks: int, first: int = 0, count: int | None = None
    ) -> list[Step]:
        """What is done to one picture.

        Args:
            words: From :func:`~kd_autoaug.augmentation.rng_single.picture_words`.
            size: Height and width of the picture.
            blocks: That were drawn of each stream, at least :attr:`blocks`.
            first: The place of the first layer among the streams.
            count: Layers wanted; all if ``None``.

        Returns:
            The operators that are applied; what is not applied is left out.
        """
        out = []
        evens, odds = words
        place, stride = 2 * blocks * first, 2 * blocks
        entry = ((evens[place] * self.rows) >> 32) * self.slots - 1
        left = None if self.weights is None else list(self.weights)
        for at in range(place, place + stride * (self.layers if count is None else count), stride):
            entry = entry + 1 if not self.draws else self._entry(evens[at], left)
            if not evens[at + 1] < self.thresholds[entry]:
                continue
            op = self.ops[entry]
            if op == _IDENTITY:
                continue
            how = self.kinds[0] if len(self.kinds) == 1 else self.kinds[(odds[at + 1] * len(self.kinds)) >> 32]
            level = evens[at + 2] if blocks > 1 else 0
            arg, box = self._argument(entry, odds[at] >> 31, level, size), _NO_BOX
            if op == _CUTOUT:
                box, arg = box_of(self.space.cutout, arg, evens[at + 3], odds[at + 2], size), 0.0
            elif op == _BLUR:
                low = self.space.blur_from
                arg = low + (arg - low) * (odds[at + 3] * _WORD)
            out.append(Step(op, arg, how, box))
        return out

    def _entry(self, word: int, left: list[int] | None) -> int:
        """Number of the entry drawn; one that has weight loses it."""
        if left is None:
            return (word * self.rows) >> 32
        until = list(accumulate(left))
        found = bisect_right(until, (word * until[-1]) >> 32)
        left[found] = 0
        return found

    def _argument(self, entry: int, negative: int, word: int, size: tuple[int, int]) -> float:
        if self.noise is None:
            bin_ = (word * self.bins) >> 32 if self.random_bin else 0
            return self.arguments(entry, (entry * self.bins + bin_) * 2 + negative, size)
        level = self.levels[entry]
        if self.noise.std == math.inf:
            level = level * (word * _WORD)
        else:
            level = level + self.noise.std * self.quantiles[word >> 16]
        fraction = min(max(level, 0.0), self.noise.upper) / self.denominator
        return self.laws[entry].at(fraction, bool(negative)) * self.arguments(entry, entry, size)
