"""What every data module here has in common: names, sizes, splits and loaders.

Validation and test use the same pictures where a data set has only two splits (digits, CIFAR, ImageNet): then ``best``
figures are chosen on the pictures they are reported on, and the final epoch's figure is the one to quote.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Subset

from effkit.data.sampling import EpochSampler, SeededDataset, TensorLoader, spread
from effkit.data.transforms import TENSOR_AUGMENTS
from effkit.errors import UserError, choose

__all__ = ["DataModule", "MemoryDataModule", "need_folder"]


def _positive(field: str, value: int, *, zero: bool = False) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < (0 if zero else 1):
        raise UserError(f"{field}={value!r} must be a whole number of at least {0 if zero else 1}")
    return value


def need_folder(field: str, value: str | Path | None, purpose: str) -> Path:
    """Return ``value`` as the path of an existing folder.

    Raises:
        UserError: If it is missing; says what the folder is for.
    """
    if value is None or str(value) == "":
        raise UserError(f"{field} is not set: give {purpose}, e.g. {field}=PATH")
    path = Path(value).expanduser()
    if not path.is_dir():
        raise UserError(f"{field}={str(value)!r} is not a folder: give {purpose}")
    return path


def _per_channel(field: str, value: float | Sequence[float], channels: int) -> tuple[float, ...]:
    try:
        values = (float(value),) * channels if isinstance(value, int | float) else tuple(map(float, value))
    except (TypeError, ValueError):
        raise UserError(f"{field}={value!r} must be a number or a list of {channels} numbers") from None
    if len(values) != channels:
        raise UserError(f"{field}={list(values)} has {len(values)} values, but the images have {channels} channels")
    if field == "data.std" and min(values) <= 0:
        raise UserError(f"{field}={list(values)} must be above 0")
    return values


class DataModule(LightningDataModule):
    """A classification data set as Lightning takes it, with the facts a model needs to be built for it.

    Subclasses fill ``self.splits`` in ``setup``: ``train``, ``val``, ``test`` -> data set of ``(image, label)``.

    Args:
        name: The name in ``effkit.data.DATASETS``.
        class_names: One name per class; their number is ``num_classes``.
        image_size: Side of the square images in pixels.
        in_chans: Channels of the images.
        mean: Mean that normalisation subtracts, pixels being 0..1: one per channel, or one for all.
        std: Standard deviation that it divides by, likewise.
        batch_size: Images per batch and process.
        num_workers: Loader processes per training process; 0 loads in the training process.
        seed: Seed of the training order and of the augmentation.
        limit: At most this many pictures of each split, evenly spread over it; ``None`` takes all.
        drop_last: Leave an incomplete last training batch out.
        repeats: Augmented copies of a picture per epoch (repeated augmentation), see ``EpochSampler``.
    """

    def __init__(
        self,
        name: str,
        *,
        class_names: Sequence[str],
        image_size: int,
        in_chans: int,
        mean: float | Sequence[float],
        std: float | Sequence[float],
        batch_size: int,
        num_workers: int = 0,
        seed: int = 0,
        limit: int | None = None,
        drop_last: bool = False,
        repeats: int = 1,
    ) -> None:
        super().__init__()
        self.name = name
        self.class_names = [str(c) for c in class_names]
        self.num_classes = len(self.class_names)
        self.image_size = _positive("data.image_size", image_size)
        self.in_chans = _positive("data.in_chans", in_chans)
        self.mean = _per_channel("data.mean", mean, in_chans)
        self.std = _per_channel("data.std", std, in_chans)
        self.batch_size = _positive("data.batch_size", batch_size)
        self.num_workers = _positive("data.num_workers", num_workers, zero=True)
        self.seed = _positive("data.seed", seed, zero=True)
        self.limit = limit if limit is None else _positive("data.limit", limit)
        self.drop_last = drop_last
        self.repeats = _positive("data.repeats", repeats)
        self.splits: dict[str, Any] = {}

    def split(self, name: str) -> Any:
        """Return one split as a data set of ``(image, label)``, loading it on first use.

        Args:
            name: ``"train"``, ``"val"`` or ``"test"``.
        """
        choose("split", name, ["train", "val", "test"])
        if name not in self.splits:
            self.prepare_data()
            self.setup("fit" if name in ("train", "val") else "test")
        return self.splits[name]

    def _limited(self, dataset: Any) -> Any:
        return dataset if self.limit is None else Subset(dataset, spread(len(dataset), self.limit))

    def _loader(self, split: str) -> Any:
        train = split == "train"
        dataset = self.split(split)
        sampler = EpochSampler(len(dataset), seed=self.seed, train=train, repeats=self.repeats)
        return DataLoader(
            SeededDataset(dataset, train=train),
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            drop_last=self._drop_last(train, len(sampler)),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            # Without one of its own an iterator draws its base seed from the global generator, and Lightning starts the
            # first iterator of a resumed run at another moment than that of an uninterrupted one: dropout would differ.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _drop_last(self, train: bool, images: int) -> bool:
        return train and self.drop_last and images >= self.batch_size  # never an epoch without a single batch

    def train_dataloader(self) -> Any:
        """Shuffled batches of the training split, in an order given by (seed, epoch)."""
        return self._loader("train")

    def val_dataloader(self) -> Any:
        """Batches of the validation split, in order."""
        return self._loader("val")

    def test_dataloader(self) -> Any:
        """Batches of the test split, in order."""
        return self._loader("test")


class MemoryDataModule(DataModule):
    """A data module whose splits are pairs of tensors ``images (N, C, H, W)``, ``labels (N,)``.

    Args:
        name: The name in ``effkit.data.DATASETS``.
        augment: ``"none"`` or ``"shift"`` (each image moved by up to an eighth of its side).
        **kwargs: As for :class:`DataModule`.
    """

    def __init__(self, name: str, *, augment: str | None, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.augment = TENSOR_AUGMENTS[choose("data.augment", augment or "none", TENSOR_AUGMENTS)]

    def arrays(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return ``{"train": (images, labels), "test": (images, labels)}``; subclasses say how."""
        raise AssertionError(f"{type(self).__name__} must define arrays()")

    def setup(self, stage: str | None = None) -> None:
        """Build the tensors once; they serve every stage."""
        if self.splits:
            return
        for name, (images, labels) in self.arrays().items():
            chosen = spread(len(labels), self.limit)
            self.splits[name] = torch.utils.data.TensorDataset(images[chosen], labels[chosen])
        self.splits["val"] = self.splits["test"]

    def _loader(self, split: str) -> TensorLoader:
        train = split == "train"
        images, labels = self.split(split).tensors
        sampler = EpochSampler(len(labels), seed=self.seed, train=train, repeats=self.repeats)
        drop_last = self._drop_last(train, len(sampler))
        transform = self.augment if train else None
        return TensorLoader(images, labels, self.batch_size, sampler, drop_last=drop_last, transform=transform)
