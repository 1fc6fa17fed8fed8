"""Data for a search: training and validation pictures at a network's side, and no way to the test split."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from effkit.data import DATASETS, DataModule, ImageFolder, create_data, data_arguments
from effkit.errors import UserError, choose
from greedy_enlarge.spec import ArchSpec

__all__ = ["HELD_OUT", "SelectionData", "open_data"]

HELD_OUT = 5  # of data sets without a validation split of their own every so-manieth training picture validates


@functools.lru_cache(maxsize=8)
def _opened(options: str, resolution: int, in_chans: int | None) -> DataModule:
    """Pictures are cut and resized once a process and size."""
    grey: dict[str, Any] = {} if in_chans is None else {"in_chans": in_chans}
    return create_data(**json.loads(options), image_size=resolution, **grey)


def open_data(options: Mapping[str, Any], spec: ArchSpec, seed: int) -> DataModule:
    """Open the data set at a network's picture side and channels.

    Args:
        options: The group ``data`` of a config.
        spec: The network.
        seed: Of the order of the training pictures.

    Raises:
        UserError: If the network has other classes or channels, or an option does not fit.
    """
    given = {k: v for k, v in options.items() if k not in ("image_size", "in_chans", "seed")}
    kind = DATASETS[choose("data.name", str(given.get("name")), DATASETS)]
    channels = spec.in_chans if "in_chans" in data_arguments(kind) else None  # others have colours, always
    data = _opened(json.dumps(given, sort_keys=True), spec.resolution, channels)
    data.seed = seed
    sizes = (("classes", spec.classes, data.num_classes), ("channels", spec.in_chans, data.in_chans))
    for what, asked, there in sizes:
        if asked != there:
            raise UserError(f"spec has {asked} {what}, but data={data.name} has {there}: give spec as many")
    return data


class _Untouchable:
    """Stands where the test pictures would."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError("a search must not read the test split")

    def __len__(self) -> int:
        raise AssertionError("a search must not read the test split")


class SelectionData(LightningDataModule):
    """Training and validation pictures of a data set, whose test split cannot be had from here.

    Where a data set validates on its test pictures (digits, CIFAR, ImageNet, a folder with only one of ``val`` and
    ``test``), every fifth training picture validates instead, without augmentation.

    Args:
        data: The data set.

    Attributes:
        train: Training pictures.
        val: Validation pictures.
        seen: Training pictures an epoch shows; an incomplete last batch may be left out.
    """

    def __init__(self, data: DataModule) -> None:
        super().__init__()
        self.train, self.val = _parts(data)
        # The loaders are the data set's own, of other pictures.
        self.data = copy.copy(data)
        self.data.splits = {"train": self.train, "val": self.val, "test": _Untouchable()}
        number, size = len(self.train), data.batch_size
        self.seen = number - number % size if data.drop_last and number >= size else number

    def train_dataloader(self) -> Any:
        """Shuffled training batches."""
        return self.data.train_dataloader()

    def val_dataloader(self) -> Any:
        """Validation batches, in order."""
        return self.data.val_dataloader()

    def test_dataloader(self) -> Any:
        """Nothing: a search that looked at test pictures could not be measured on them.

        Raises:
            AssertionError: Always.
        """
        raise AssertionError("a search must not read the test split")

    def normalize(self, images: Tensor) -> Tensor:
        """Bytes to what the network sees."""
        return self.data.preprocessing.normalize(images)


def _parts(data: DataModule) -> tuple[Any, Any]:
    """Training and validation pictures, none of them of the test split."""
    train = data.split("train")
    if not _validates_on_test(data):
        return train, data.split("val")
    kept = [i for i in range(len(train)) if i % HELD_OUT != HELD_OUT - 1]
    held = [i for i in range(len(train)) if i % HELD_OUT == HELD_OUT - 1]
    if not held:
        raise UserError(
            f"data={data.name} has {len(train)} training pictures: at least {HELD_OUT} are needed to select"
        )
    if isinstance(train, TensorDataset):
        images, labels = train.tensors
        return TensorDataset(images[kept], labels[kept]), TensorDataset(images[held], labels[held])
    return Subset(train, kept), Subset(_plain(train, data), held)


def _plain(dataset: Any, data: Any) -> Any:
    """The same pictures as evaluation shows them."""
    if isinstance(dataset, Subset):
        return Subset(_plain(dataset.dataset, data), dataset.indices)
    found = copy.copy(dataset)
    found.transform = data.eval_transform
    return found


def _validates_on_test(data: DataModule) -> bool:
    if isinstance(data, ImageFolder):
        return data.folders["val"] == data.folders["test"]
    val, test = data.split("val"), data.split("test")
    return (val.dataset if isinstance(val, Subset) else val) is (test.dataset if isinstance(test, Subset) else test)
