"""The data that candidates are compared on: training and validation pictures, and never the test split."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import TensorDataset

from effkit.data import DataModule, MemoryDataModule, create_data
from effkit.data.sampling import EpochSampler, TensorLoader
from effkit.errors import UserError
from greedy_enlarge.spec import ArchSpec

__all__ = ["SelectionData", "open_data"]

HELD_OUT = 5  # of data sets without a validation split of their own every so-manieth training picture validates


@functools.lru_cache(maxsize=8)
def _opened(options: str, resolution: int, in_chans: int) -> DataModule:
    """Pictures are cut and resized once a process and size."""
    return create_data(**json.loads(options), image_size=resolution, in_chans=in_chans)


def open_data(options: Mapping[str, Any], spec: ArchSpec, seed: int) -> DataModule:
    """Open the data set at a network's picture side and channels.

    Args:
        options: The group ``data`` of a config.
        spec: The network.
        seed: Of the order of the training pictures.

    Raises:
        UserError: If the network has other classes, or an option does not fit.
    """
    given = {k: v for k, v in options.items() if k not in ("image_size", "in_chans", "seed")}
    data = _opened(json.dumps(given, sort_keys=True), spec.resolution, spec.in_chans)
    data.seed = seed
    if data.num_classes != spec.classes:
        raise UserError(f"spec.classes={spec.classes}, but data={data.name} has {data.num_classes} classes")
    return data


class SelectionData(LightningDataModule):
    """Training and validation pictures of a data set, whose test split cannot be had from here.

    Where a data set validates on its test pictures (digits), every fifth training picture validates instead.

    Args:
        data: The data set.

    Raises:
        UserError: If its pictures are not in memory.
    """

    def __init__(self, data: DataModule) -> None:
        super().__init__()
        if not isinstance(data, MemoryDataModule):
            raise UserError(
                f"data={data.name} has no validation pictures beside its test pictures; a search runs on textures, "
                "digits or photos"
            )
        self.data = data
        images, labels = data.split("train").tensors
        if data.splits["val"] is data.splits["test"]:
            held = [i % HELD_OUT == HELD_OUT - 1 for i in range(len(labels))]
            kept = [not h for h in held]
            self.train, self.val = TensorDataset(images[kept], labels[kept]), TensorDataset(images[held], labels[held])
        else:
            self.train, self.val = data.split("train"), data.split("val")

    def _loader(self, split: TensorDataset, train: bool) -> TensorLoader:
        images, labels = split.tensors
        sampler = EpochSampler(len(labels), seed=self.data.seed, train=train)
        transform = self.data.augment if train else None
        return TensorLoader(images, labels, self.data.batch_size, sampler, transform=transform)

    def train_dataloader(self) -> TensorLoader:
        """Shuffled training batches."""
        return self._loader(self.train, True)

    def val_dataloader(self) -> TensorLoader:
        """Validation batches, in order."""
        return self._loader(self.val, False)

    def test_dataloader(self) -> Any:
        """Nothing: a search that looked at test pictures could not be measured on them.

        Raises:
            AssertionError: Always.
        """
        raise AssertionError("a search must not read the test split")

    def normalize(self, images: Tensor) -> Tensor:
        """Bytes to what the network sees."""
        return self.data.preprocessing.normalize(images)
