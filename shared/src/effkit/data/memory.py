"""Data sets that fit in memory as tensors of bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from effkit.data.base import DataModule
from effkit.data.sampling import EpochSampler, TensorLoader, spread
from effkit.data.transforms import TENSOR_AUGMENTS
from effkit.errors import choose

__all__ = ["MemoryDataModule", "to_bytes"]


def to_bytes(images: Tensor) -> Tensor:
    """Grey levels -1..1 to bytes, rounded in double precision."""
    return (255 * (images.double() * 0.5 + 0.5)).round().clamp(0, 255).to(torch.uint8)


class MemoryDataModule(DataModule):
    """A data module whose splits are pairs of tensors ``images (N, C, H, W)`` in uint8 and ``labels (N,)``.

    Args:
        name: The data set's name in reports.
        augment: ``"none"`` or ``"shift"`` (each image moved by up to an eighth of its side).
        **kwargs: As for :class:`DataModule`.
    """

    def __init__(self, name: str | None = None, *, augment: str | None = "none", **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.augment: Callable[[Tensor, torch.Generator], Tensor] | None = TENSOR_AUGMENTS[
            choose("data.augment", augment or "none", TENSOR_AUGMENTS)
        ]

    def arrays(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return ``{"train": (images, labels), "test": ...}``, and ``"val"`` if that is another; subclasses say how."""
        raise AssertionError(f"{type(self).__name__} must define arrays()")

    def setup(self, stage: str | None = None) -> None:
        """Build the tensors once; they serve every stage."""
        if self.splits:
            return
        for name, (images, labels) in self.arrays().items():
            chosen = spread(len(labels), self.limit)
            self.splits[name] = TensorDataset(images[chosen], labels[chosen])
        self.splits.setdefault("val", self.splits["test"])

    def pictures(self, split: str) -> Tensor:
        """All pictures of a split, uint8 ``(N, C, H, W)``."""
        return self.split(split).tensors[0]

    def labels(self, split: str) -> Tensor:
        """Class indices of a split, int64 ``(N,)``."""
        return self.split(split).tensors[1]

    def _loader(self, split: str) -> TensorLoader:
        train = split == "train"
        images, labels = self.split(split).tensors
        sampler = EpochSampler(len(labels), seed=self.seed, train=train, repeats=self.repeats)
        if train:
            self._set_begin(sampler, self.batch_size)
        drop_last = self._drop_last(train, len(sampler))
        transform = self.augment if train else None
        return TensorLoader(images, labels, self.batch_size, sampler, drop_last=drop_last, transform=transform)
