"""The epoch of a Lightning training, told to data sets that show other views in each."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import ConcatDataset, Dataset, Subset

from kd_autoaug.augmentation.adapters import IndexedDataset

__all__ = ["FollowEpoch"]


class FollowEpoch(Callback):
    """Calls ``set_epoch`` of every ``IndexedDataset`` that the trainer trains on, at the beginning of each epoch.

    Example:
        ``Trainer(callbacks=[FollowEpoch()])``; data sets inside ``ConcatDataset`` and ``Subset`` are found.
    """

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell them."""
        loader = trainer.train_dataloader
        for one in loader.values() if isinstance(loader, dict) else loader if isinstance(loader, list) else [loader]:
            tell(getattr(one, "dataset", None), trainer.current_epoch)


def tell(data: object, epoch: int) -> None:
    """Tell the epoch to a data set, or to those inside of it."""
    if isinstance(data, IndexedDataset):
        data.set_epoch(epoch)
    elif isinstance(data, ConcatDataset):
        for part in data.datasets:
            tell(part, epoch)
    elif isinstance(data, Subset) or (isinstance(data, Dataset) and hasattr(data, "dataset")):
        tell(data.dataset, epoch)
