"""Data modules of pictures that are read and decoded one by one, with timm's augmentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from effkit.data.base import DataModule
from effkit.data.pictures import load_picture
from effkit.data.sampling import spread
from effkit.data.transforms import resolve_augment, train_transform

__all__ = ["PictureDataModule"]


class PictureDataModule(DataModule):
    """A data module of picture files with timm's augmentation.

    Args:
        name: The data set's name in reports.
        augment: A preset of ``effkit.data.transforms.AUGMENTS``, or a mapping of ``train_transform``'s arguments (with
            ``preset`` to start from one).
        **kwargs: As for :class:`DataModule`.

    Attributes:
        unreadable: Why a picture was left out, by path; see ``data.skip_unreadable``.
    """

    def __init__(self, name: str | None = None, *, augment: str | Mapping[str, Any] | None, **kwargs: Any) -> None:
        super().__init__(name, in_chans=3, **kwargs)
        self.unreadable: dict[str, str] = {}
        self._augment = resolve_augment(augment)
        _ = self.train_transform  # a mistake in it is told now

    @property
    def eval_transform(self) -> Callable[[Any], Tensor]:
        """From a PIL picture to bytes, without randomness."""
        return self.preprocessing.picture

    @property
    def train_transform(self) -> Callable[[Any], Any]:
        """From a PIL picture to bytes, augmented."""
        return train_transform(self.preprocessing, **self._augment)

    def read(self, path: str) -> Image.Image:
        """Open a picture file in this module's channels, see ``effkit.data.load_picture``."""
        return load_picture(path, self.in_chans)

    def _limited(self, dataset: Any) -> Any:
        return dataset if self.limit is None else Subset(dataset, spread(len(dataset), self.limit))

    def _located(self, split: str, index: int) -> tuple[Any, int]:
        """The data set below a split's limit, and the position in it of one of the split's pictures."""
        dataset: Any = self.split(split)
        return (dataset.dataset, dataset.indices[index]) if isinstance(dataset, Subset) else (dataset, index)

    def opened(self, split: str, index: int) -> Image.Image:
        """One picture of a split in its own size, as PIL has it."""
        dataset, position = self._located(split, index)
        if hasattr(dataset, "samples"):
            return self.read(dataset.samples[position][0])
        return load_picture(dataset.data[position], self.in_chans)

    def picture(self, split: str, index: int) -> Tensor:
        """One picture of a split as evaluation shows it, uint8 ``(C, H, W)``."""
        return self.preprocessing.picture(self.opened(split, index))

    def pictures(self, split: str) -> Tensor:
        """All pictures of a split as evaluation shows them, decoded into memory: uint8 ``(N, C, H, W)``."""
        count = len(self.split(split))
        images = torch.empty((count, self.in_chans, *self.preprocessing.size), dtype=torch.uint8)
        for index in range(count):
            images[index] = self.picture(split, index)
        return images

    def labels(self, split: str) -> Tensor:
        """Class indices of a split, int64 ``(N,)``."""
        dataset: Any = self.split(split)
        if isinstance(dataset, Subset):
            every: Any = dataset.dataset
            targets = [every.targets[i] for i in dataset.indices]
        else:
            targets = dataset.targets
        return torch.tensor(targets, dtype=torch.int64)

    def identity(self, split: str, index: int) -> bytes:
        """What tells a sample of a split from others, its label included.

        Of a file its path below the split's folder, its size, and the time it was changed in whole seconds (which
        copying keeps where it keeps anything); else its pixels. For fingerprints of what was computed from pictures.
        """
        dataset, position = self._located(split, index)
        if hasattr(dataset, "samples"):
            path, label = dataset.samples[position]
            facts = Path(path).stat()
            name = Path(path).relative_to(dataset.root).as_posix().encode()
            return name + b" %d bytes of %d=%d" % (facts.st_size, int(facts.st_mtime), label)
        return dataset.data[position].tobytes() + b"%d" % dataset.targets[position]
