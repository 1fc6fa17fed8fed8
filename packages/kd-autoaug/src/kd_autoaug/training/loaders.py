"""Batches that know which sample and which view they hold: ``(images, labels, index, view)``.

The view number of a picture is the epoch (times the copies per epoch, plus the copy), so that augmentation keyed by it
shows something new each time; with a limited number of views it starts again, which is what makes a cache of the
teacher's answers finite.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset

from effkit.data.sampling import IGNORE, EpochSampler, TensorLoader
from kd_autoaug.training.crops import KeyedCrop
from kd_autoaug.training.pictures import SplitPictures

__all__ = ["MemoryLoader", "ViewPictures", "ViewSampler"]


class ViewSampler(EpochSampler):
    """The core's order of an epoch, with the view number in place of the seed.

    Args:
        size: Number of pictures.
        seed: Seed of the run.
        train: Shuffle (training), or keep the order and fill up with ``(-1, 0)`` (evaluation).
        repeats: Copies of each picture per epoch, each a view of its own.
        num_views: Views after which they start again; ``None`` for never.
    """

    def __init__(self, size: int, *, seed: int, train: bool, repeats: int = 1, num_views: int | None = None) -> None:
        super().__init__(size, seed=seed, train=train, repeats=repeats)
        self.num_views = num_views

    def __iter__(self) -> Iterator[tuple[int, int]]:
        ready = dist.is_available() and dist.is_initialized()
        rank, world = (dist.get_rank(), dist.get_world_size()) if ready else (0, 1)
        for position, (index, _) in enumerate(super().__iter__(), self.start):
            if not self.train:
                yield index, 0
                continue
            copy = (position * world + rank) % self.repeats  # copies of a picture are neighbours in the common order
            view = self.epoch * self.repeats + copy
            yield index, view if self.num_views is None else view % self.num_views


class ViewPictures(Dataset):
    """A map-style data set whose keys are the pairs of :class:`ViewSampler`, for worker processes.

    Args:
        source: The pictures of a split.
        train: Give index and view as well.
        crop: The keyed crop of training; ``None`` shows the whole picture as in evaluation.
    """

    def __init__(self, source: SplitPictures, *, train: bool, crop: KeyedCrop | None = None) -> None:
        self.source, self.train, self.crop = source, train, crop

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Any, ...]:
        index, view = key
        if index == IGNORE:
            return self.source.picture(0), IGNORE
        label = int(self.source.labels[index])
        if not self.train:
            return self.source.picture(index), label
        if self.crop is None:
            return self.source.picture(index), label, index, view
        return self.crop(self.source.opened(index), index, view), label, index, view


class MemoryLoader(TensorLoader):
    """Batches of pictures in memory: one indexing per batch, no worker processes.

    Args:
        images: uint8 ``(N, C, H, W)``.
        labels: ``(N,)`` class indices.
        batch_size: Images per batch; the last batch is smaller unless ``drop_last``.
        sampler: Order and views.
        drop_last: Leave an incomplete last batch out.
    """

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:  # type: ignore[override]
        keys = torch.tensor(list(self.sampler), dtype=torch.int64).view(-1, 2)
        for start in self.starts():
            index, view = keys[start : start + self.batch_size].unbind(1)
            images, labels = self.images[index], self.labels[index]
            if self.sampler.train:
                yield images, labels, index, view
            else:
                labels[index == IGNORE] = IGNORE
                yield images, labels
