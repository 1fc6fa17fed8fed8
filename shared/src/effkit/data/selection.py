"""Data to choose networks by: training and validation pictures of a data set, and no way to its test split."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from effkit.data.base import DataModule, PreparedData, whole_number
from effkit.data.folders import ImageFolder
from effkit.data.preprocessing import Preprocessing
from effkit.errors import UserError

__all__ = ["HELD_OUT", "SelectionData", "parts_to_select_by", "plain_pictures"]

HELD_OUT = 5  # of data sets without a validation split of their own every so-manieth training picture validates


class _Untouchable:
    """Stands where the test pictures would."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError("a search must not read the test split")

    def __len__(self) -> int:
        raise AssertionError("a search must not read the test split")


class SelectionData(PreparedData):
    """Training and validation pictures of a data set, whose test split cannot be had from here.

    Where a data set validates on its test pictures (digits, CIFAR, ImageNet, a folder with only one of ``val`` and
    ``test``), every so-manieth training picture validates instead, without augmentation.

    Args:
        data: The data set.
        every: The number of training pictures of which the last one validates; 2 halves them.

    Attributes:
        train: Training pictures.
        val: Validation pictures.
        seen: Training pictures an epoch shows; an incomplete last batch may be left out.

    Raises:
        UserError: If there are too few pictures.
    """

    def __init__(self, data: DataModule, every: int = HELD_OUT) -> None:
        super().__init__()
        self.train, self.val = parts_to_select_by(data, every)
        # The loaders are the data set's own, of other pictures.
        self.data = copy.copy(data)
        self.data.splits = {"train": self.train, "val": self.val, "test": _Untouchable()}
        number, size = len(self.train), data.batch_size
        self.seen = number - number % size if data.drop_last and number >= size else number

    @property
    def preprocessing(self) -> Preprocessing:  # type: ignore[override]  # the data set's
        """How pictures get their size and bytes become numbers, with the names of the classes."""
        return self.data.preprocessing

    @property
    def name(self) -> str:  # type: ignore[override]  # the data set's
        """The data set's name."""
        return str(self.data.name)

    @property
    def batch_size(self) -> int:
        """Pictures per batch and process."""
        return self.data.batch_size

    @property
    def unreadable(self) -> dict[str, str]:
        """Why a picture was left out, by path; see ``data.skip_unreadable``."""
        return getattr(self.data, "unreadable", {})

    def begin_at(self, epoch: int, batches: int = 0) -> None:
        """Let training go on where an interrupted run stopped."""
        self.data.begin_at(epoch, batches)

    def _loader(self, split: str) -> Any:
        return self.data._loader(split)

    def test_dataloader(self) -> Any:
        """Nothing: a search that looked at test pictures could not be measured on them.

        Raises:
            AssertionError: Always.
        """
        raise AssertionError("a search must not read the test split")

    def normalize(self, images: Tensor) -> Tensor:
        """Bytes to what the network sees."""
        return self.data.preprocessing.normalize(images)


def parts_to_select_by(data: DataModule, every: int = HELD_OUT, *, always: bool = False) -> tuple[Any, Any]:
    """Training and validation pictures, none of them of the test split.

    Args:
        data: The data set.
        every: The number of training pictures of which the last one validates, where training pictures must.
        always: Hold training pictures out also where the data set has validation pictures of its own.

    Raises:
        UserError: If ``every`` is below 2, or there are too few pictures.
    """
    if whole_number("every", every) < 2:
        raise UserError(f"every={every} leaves no picture to train on: it must be at least 2")
    train = data.split("train")
    if not always and not _validates_on_test(data):
        return train, data.split("val")
    kept = [i for i in range(len(train)) if i % every != every - 1]
    held = [i for i in range(len(train)) if i % every == every - 1]
    if not held:
        raise UserError(f"data={data.name} has {len(train)} training pictures: at least {every} are needed to select")
    if isinstance(train, TensorDataset):
        images, labels = train.tensors
        return TensorDataset(images[kept], labels[kept]), TensorDataset(images[held], labels[held])
    return Subset(train, kept), Subset(plain_pictures(train, data), held)


def plain_pictures(dataset: Any, data: Any) -> Any:
    """The same pictures as evaluation shows them.

    Args:
        dataset: Pictures of a split, or a part of them.
        data: Their data set.
    """
    if isinstance(dataset, TensorDataset):  # augmented by their loader only
        return dataset
    if isinstance(dataset, Subset):
        return Subset(plain_pictures(dataset.dataset, data), dataset.indices)
    found = copy.copy(dataset)
    found.transform = data.eval_transform
    return found


def _validates_on_test(data: PreparedData) -> bool:
    if isinstance(data, ImageFolder):
        return data.folders["val"] == data.folders["test"]
    val, test = data.split("val"), data.split("test")  # type: ignore[attr-defined]
    return (val.dataset if isinstance(val, Subset) else val) is (test.dataset if isinstance(test, Subset) else test)
