"""Lightning's loaders of a data module, as one function of the split."""

from __future__ import annotations

from typing import Any

__all__ = ["SplitLoaders"]


class SplitLoaders:
    """Training, validation and test batches from ``_loader``; stands before ``LightningDataModule`` among the bases."""

    def _loader(self, split: str) -> Any:
        """Batches of ``train``, ``val`` or ``test``."""
        raise TypeError(f"{type(self).__name__} has no _loader")

    def train_dataloader(self) -> Any:
        """Shuffled batches of the training split, in an order given by (seed, epoch)."""
        return self._loader("train")

    def val_dataloader(self) -> Any:
        """Batches of the validation split, in order."""
        return self._loader("val")

    def test_dataloader(self) -> Any:
        """Batches of the test split, in order."""
        return self._loader("test")
