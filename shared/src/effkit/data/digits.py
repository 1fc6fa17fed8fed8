"""scikit-learn's handwritten digits: 1,797 real 8 x 8 grey pictures that ship with the library, no download."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from effkit.data.base import MemoryDataModule

__all__ = ["Digits", "load_digits"]

TEST_SIZE = 360
SPLIT_SEED = 0  # of the split only: it never changes, whatever the seed of the run


def load_digits(image_size: int = 32, in_chans: int = 3) -> dict[str, tuple[Tensor, Tensor]]:
    """Load the digits with their fixed stratified split.

    Args:
        image_size: Side in pixels, reached from 8 by bilinear interpolation.
        in_chans: The grey channel is repeated this many times.

    Returns:
        ``train`` (1,437 pictures) and ``test`` (360): images ``(N, in_chans, image_size, image_size)`` in -1..1 (grey
        value / 8 - 1), labels ``(N,)``.
    """
    from sklearn.datasets import load_digits as sklearn_digits
    from sklearn.model_selection import train_test_split

    data = sklearn_digits()
    grey = torch.from_numpy(data.images).float()[:, None] / 8 - 1
    images = F.interpolate(grey, size=(image_size, image_size), mode="bilinear", align_corners=False)
    images = images.repeat(1, in_chans, 1, 1)
    labels = torch.from_numpy(data.target).long()
    train, test = train_test_split(
        range(len(labels)), test_size=TEST_SIZE, stratify=data.target, random_state=SPLIT_SEED
    )
    return {"train": (images[train], labels[train]), "test": (images[test], labels[test])}


class Digits(MemoryDataModule):
    """The digits in memory, for training in seconds on a CPU. Validation and test are the same 360 pictures.

    Args:
        batch_size: Images per batch.
        image_size: Side in pixels; the pictures are enlarged from 8.
        in_chans: How often the grey channel is repeated.
        augment: ``"none"`` or ``"shift"``.
        seed: Seed of the training order.
        limit: At most this many pictures of each split.
        drop_last: Leave an incomplete last training batch out.
        repeats: Copies of a picture per epoch, each augmented differently.
        num_workers: Accepted for uniformity; tensors in memory need no loader processes.
    """

    def __init__(
        self,
        batch_size: int = 32,
        image_size: int = 32,
        in_chans: int = 3,
        augment: str | None = "none",
        seed: int = 0,
        limit: int | None = None,
        drop_last: bool = False,
        repeats: int = 1,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            "digits",
            augment=augment,
            class_names=[str(d) for d in range(10)],
            image_size=image_size,
            in_chans=in_chans,
            mean=0.5,
            std=0.5,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            limit=limit,
            drop_last=drop_last,
            repeats=repeats,
        )

    def arrays(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Load the two splits at this module's size."""
        return load_digits(self.image_size, self.in_chans)
