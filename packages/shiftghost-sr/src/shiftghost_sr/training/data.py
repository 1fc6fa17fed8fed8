"""Pairs of low and high resolution as a Lightning data module."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from effkit.data.base import PreparedData, batches, whole_number
from effkit.data.sampling import EpochSampler
from effkit.errors import UserError, choose
from shiftghost_sr.images.sets import DATASETS, Pair, find_pairs
from shiftghost_sr.training.crops import Crops, Pictures

__all__ = ["SRData"]


class SRData(PreparedData):
    """Batches ``[low, [high, number]]`` of bytes: random crops for training, whole pictures one by one else.

    Args:
        name: One of ``shiftghost_sr.images.sets.DATASETS``.
        scale: How many times larger high resolution is.
        root: Folder of the pictures, see ``shiftghost_sr.images.sets.find_pairs``.
        val_root: Likewise.
        lr_root: Likewise.
        val_lr_root: Likewise.
        patch: Side of the training crops in high-resolution pixels, a multiple of ``scale``.
        crops: Training crops per epoch.
        batch_size: Crops per batch and process.
        num_workers: Loader processes.
        augment: Whether crops are flipped and transposed.
        limit: At most this many pictures of each split.
        memory_mb: Pictures are kept in memory up to this size, per process.
        seed: Of order, place and form of the crops.

    Raises:
        UserError: If a value is out of range, or pictures are missing.
    """

    def __init__(
        self,
        name: str = "bundled",
        *,
        scale: int,
        root: str | None = None,
        val_root: str | None = None,
        lr_root: str | None = None,
        val_lr_root: str | None = None,
        patch: int = 96,
        crops: int = 1600,
        batch_size: int = 16,
        num_workers: int = 0,
        augment: bool = True,
        limit: int | None = None,
        memory_mb: int = 1024,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._kind = choose("data.name", name, DATASETS)
        self.name = self._kind
        self.scale = whole_number("scale", scale)
        self._where = {"root": root, "val_root": val_root, "lr_root": lr_root, "val_lr_root": val_lr_root}
        if name == "bundled" and (given := [key for key, value in self._where.items() if value is not None]):
            raise UserError(f"data.{given[0]} needs data=folder, div2k or benchmark: bundled photographs have none")
        self.patch = whole_number("data.patch", patch)
        if patch % scale:
            raise UserError(f"data.patch={patch} must be a multiple of scale={scale}")
        self.crops = whole_number("data.crops", crops)
        self.batch_size = whole_number("data.batch_size", batch_size)
        self.num_workers = whole_number("data.num_workers", num_workers, zero=True)
        self.limit = limit if limit is None else whole_number("data.limit", limit)
        self.memory = whole_number("data.memory_mb", memory_mb, zero=True) << 20
        self.seed = whole_number("data.seed", seed, zero=True)
        self.augment = augment
        self._splits: dict[str, Any] = {}

    def pairs(self, split: str) -> list[Pair]:
        """The pictures of ``train``, ``val`` or ``test``.

        Raises:
            UserError: If there are none.
        """
        if split == "train" and self.name == "benchmark":
            raise UserError("data=benchmark is for evaluation: train on data=bundled, folder or div2k")
        return find_pairs(self._kind, split, self.scale, **self._where)[: self.limit]

    def split(self, split: str) -> Crops | Pictures:
        """One split as a data set."""
        if split not in self._splits:
            pairs = self.pairs(split)
            if split == "train":
                self._splits[split] = Crops(
                    pairs, self.scale, self.patch, self.crops, augment=self.augment, memory=self.memory
                )
            else:
                self._splits[split] = Pictures(pairs, self.scale, self.memory)
        return self._splits[split]

    def _loader(self, split: str) -> DataLoader:
        dataset, train = self.split(split), split == "train"
        sampler = EpochSampler(len(dataset), seed=self.seed, train=train)
        if train:
            self._set_begin(sampler, self.batch_size)
        return batches(
            dataset,
            sampler,
            batch_size=self.batch_size if train else 1,
            num_workers=self.num_workers,
            seed=self.seed,
        )
