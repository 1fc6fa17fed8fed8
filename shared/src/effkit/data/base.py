"""What every data module here has in common: names, sizes, splits and loaders of pictures in bytes.

Batches are ``[images, labels]`` with images as uint8; normalisation happens on the device that computes, by
``self.preprocessing`` (``effkit.lightning.Classifier`` does it). Under random erasing there is a third part, see
``effkit.data.erasing``.

Validation and test use the same pictures where a data set has only two splits (digits, CIFAR, ImageNet): then ``best``
figures are chosen on the pictures they are reported on, and the final epoch's figure is the one to quote.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from effkit.data.erasing import collate
from effkit.data.facts import FACTS, normalization
from effkit.data.preprocessing import Preprocessing
from effkit.data.sampling import EpochSampler, SeededDataset, leave_signals
from effkit.errors import UserError, choose

__all__ = ["OPTIONS", "SPLITS", "DataModule", "PreparedData", "batches", "need_folder", "whole_number"]

SPLITS = ("train", "val", "test")
OPTIONS = ("mean", "std", "batch_size", "num_workers", "seed", "limit", "drop_last", "repeats")
"""Arguments of :class:`DataModule` that users give, to every data set."""


def whole_number(field: str, value: int, *, zero: bool = False) -> int:
    """Return ``value`` if it is a whole number of at least 1 (or 0).

    Raises:
        UserError: If not.
    """
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


def batches(
    dataset: Any, sampler: EpochSampler, *, batch_size: int, num_workers: int, seed: int, drop_last: bool = False
) -> DataLoader:
    """Load a data set in batches, so that a resumed run sees what an uninterrupted one does.

    Args:
        dataset: By the keys of ``sampler``.
        sampler: Which sample comes when.
        batch_size: Samples per batch and process.
        num_workers: Loader processes; 0 loads in this process.
        seed: Of the loader.
        drop_last: Leave an incomplete last batch out.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        drop_last=drop_last,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        worker_init_fn=leave_signals,
        # Without one of its own an iterator draws its base seed from the global generator, and Lightning starts the
        # first iterator of a resumed run at another moment than that of an uninterrupted one: dropout would differ.
        generator=torch.Generator().manual_seed(seed),
    )


class PreparedData(LightningDataModule):
    """Pictures of three splits with a preprocessing, which says what they are."""

    preprocessing: Preprocessing
    _begins: tuple[int, int] = (0, 0)

    def begin_at(self, epoch: int, batches: int = 0) -> None:
        """Let training go on where an interrupted run stopped.

        A loader whose workers fetch ahead has to know before its first iteration, when Lightning has not told it yet.

        Args:
            epoch: The first epoch, counting from 0.
            batches: Batches of it that have been seen.
        """
        self._begins = epoch, batches

    def _set_begin(self, sampler: EpochSampler, batch_size: int) -> None:
        """Set a sampler of the training split to where training begins."""
        epoch, batches = self._begins
        sampler.set_epoch(epoch, batches * batch_size)

    @property
    def class_names(self) -> list[str]:
        """One name per class, in the order of the labels."""
        return list(self.preprocessing.class_names)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.preprocessing.class_names)

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.preprocessing.size[0]

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        return self.preprocessing.channels

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean that normalisation subtracts, per channel."""
        return self.preprocessing.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation that it divides by, per channel."""
        return self.preprocessing.std

    def train_dataloader(self) -> Any:
        """Shuffled batches of the training split, in an order given by (seed, epoch)."""
        return self._loader("train")

    def val_dataloader(self) -> Any:
        """Batches of the validation split, in order."""
        return self._loader("val")

    def test_dataloader(self) -> Any:
        """Batches of the test split, in order."""
        return self._loader("test")

    def _loader(self, split: str) -> Any:
        raise AssertionError(f"{type(self).__name__} must define _loader()")


class DataModule(PreparedData):
    """A classification data set as Lightning takes it, with the facts a model needs to be built for it.

    Subclasses fill ``self.splits`` in ``setup``: ``train``, ``val``, ``test`` -> data set of ``(image, label)``, and
    say in ``kind`` which of ``effkit.data.facts.FACTS`` are theirs.

    Args:
        name: The data set's name in reports; ``kind`` if ``None``.
        class_names: One name per class; their number is ``num_classes``.
        image_size: Side of the square images in pixels.
        in_chans: Channels of the images.
        crop_pct: Evaluation crop as a fraction of the resized shorter side; ``None`` for the data set's own.
        interpolation: Of the evaluation resize, likewise.
        mean: Mean that normalisation subtracts, pixels being 0..1: one per channel, or one for all; ``None`` for the
            data set's own.
        std: Standard deviation that it divides by, likewise.
        batch_size: Images per batch and process.
        num_workers: Loader processes per training process; 0 loads in the training process.
        seed: Seed of the training order and of the augmentation.
        limit: At most this many pictures of each split, evenly spread over it; ``None`` takes all.
        drop_last: Leave an incomplete last training batch out.
        repeats: Augmented copies of a picture per epoch (repeated augmentation), see ``EpochSampler``.
    """

    kind: str

    def __init__(
        self,
        name: str | None = None,
        *,
        class_names: Sequence[str],
        image_size: int,
        in_chans: int,
        batch_size: int,
        crop_pct: float | None = None,
        interpolation: str | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        num_workers: int = 0,
        seed: int = 0,
        limit: int | None = None,
        drop_last: bool = False,
        repeats: int = 1,
    ) -> None:
        super().__init__()
        self.name = name or self.kind
        facts = FACTS[self.kind]
        size, channels = whole_number("data.image_size", image_size), whole_number("data.in_chans", in_chans)
        mean, std = normalization(self.kind, channels, mean, std)
        try:
            self.preprocessing = Preprocessing(
                size=(size, size),
                crop_pct=facts.crop_pct if crop_pct is None else crop_pct,
                interpolation=interpolation or facts.interpolation,
                mean=mean,
                std=std,
                class_names=tuple(map(str, class_names)),
            )
        except UserError as error:
            raise UserError(str(error).replace("preprocessing: ", "data.", 1)) from error
        self.batch_size = whole_number("data.batch_size", batch_size)
        self.num_workers = whole_number("data.num_workers", num_workers, zero=True)
        self.seed = whole_number("data.seed", seed, zero=True)
        self.limit = limit if limit is None else whole_number("data.limit", limit)
        self.drop_last = drop_last
        self.repeats = whole_number("data.repeats", repeats)
        self.splits: dict[str, Any] = {}

    # --- facts ----------------------------------------------------------------------------------------------------

    def name_classes(self, names: Sequence[str]) -> None:
        """Give the classes the names that the files say."""
        self.preprocessing = dataclasses.replace(self.preprocessing, class_names=tuple(names))

    def use(self, preprocessing: Preprocessing) -> None:
        """Show the pictures as a trained network expects them, instead of as this module was told.

        Args:
            preprocessing: That of a run, see ``effkit.runs.Run``.

        Raises:
            UserError: If it is about other classes, or another number of channels than this data set can give.
        """
        self.check_classes(preprocessing, "the network")
        self.splits = {}
        self.preprocessing = dataclasses.replace(preprocessing, class_names=tuple(self.class_names))

    def check_classes(self, preprocessing: Preprocessing, who: str) -> None:
        """Check that a trained network tells apart the classes of this data set, in their order.

        Args:
            preprocessing: That of its run; one that names no classes is not checked.
            who: What to call the network.

        Raises:
            UserError: If it does not.
        """
        names = preprocessing.class_names
        if names and list(names) != self.class_names:
            differing = next((i for i, (a, b) in enumerate(zip(names, self.class_names, strict=False)) if a != b), None)
            what = f"{len(names)} and {self.num_classes} of them"
            if differing is not None:
                what = f"class {differing} is {names[differing]!r} there and {self.class_names[differing]!r} here"
            raise UserError(f"{who} was trained on other classes than those of data={self.name}: {what}")

    # --- pictures -------------------------------------------------------------------------------------------------

    def split(self, name: str) -> Any:
        """Return one split as a data set of ``(image, label)``, loading it on first use.

        Args:
            name: ``"train"``, ``"val"`` or ``"test"``.
        """
        choose("split", name, SPLITS)
        if name not in self.splits:
            self.prepare_data()
            self.setup("fit" if name in ("train", "val") else "test")
        return self.splits[name]

    def pictures(self, split: str) -> Tensor:
        """All pictures of a split as evaluation shows them, in memory: uint8 ``(N, C, H, W)``."""
        raise AssertionError(f"{type(self).__name__} must define pictures()")

    def labels(self, split: str) -> Tensor:
        """Class indices of a split, int64 ``(N,)``."""
        raise AssertionError(f"{type(self).__name__} must define labels()")

    # --- loaders --------------------------------------------------------------------------------------------------

    def _loader(self, split: str) -> Any:
        train = split == "train"
        dataset = self.split(split)
        sampler = EpochSampler(len(dataset), seed=self.seed, train=train, repeats=self.repeats)
        if train:
            self._set_begin(sampler, self.batch_size)
        return batches(
            SeededDataset(dataset, train=train),
            sampler,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            seed=self.seed,
            drop_last=self._drop_last(train, len(sampler)),
        )

    def _drop_last(self, train: bool, images: int) -> bool:
        return train and self.drop_last and images >= self.batch_size  # never an epoch without a single batch
