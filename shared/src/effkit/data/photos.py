"""Two photographs that ship with scikit-learn, cut into a two-class set of real colour pictures of any size.

``china.jpg`` and ``flower.jpg`` are 640 x 427 pixels. Training crops come from columns 0..399, test crops from columns
400..639, so that no pixel is in both. The task is easy on purpose: it shows that a recipe for real photographs learns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from effkit.data.base import MemoryDataModule
from effkit.errors import UserError

__all__ = ["PHOTOS", "PhotoCrops", "crop_boxes"]

PHOTOS = ("china", "flower")
COLUMNS = {"train": (0, 400), "test": (400, 640)}
GRID = {"train": (8, 8), "test": (8, 4)}  # rows, columns of crops in each photograph
LARGEST_CROP = 240  # the test part's width


def crop_boxes(split: str, crop: int, height: int = 427) -> list[tuple[int, int, int, int]]:
    """Return ``(top, left, bottom, right)`` of each crop of one photograph, in pixels, evenly spread.

    Args:
        split: ``"train"`` or ``"test"``.
        crop: Side of a crop.
        height: Height of the photograph.
    """
    (left, right), (rows, columns) = COLUMNS[split], GRID[split]
    tops = np.linspace(0, height - crop, rows).round().astype(int)
    lefts = np.linspace(left, right - crop, columns).round().astype(int)
    return [(int(t), int(x), int(t) + crop, int(x) + crop) for t in tops for x in lefts]


class PhotoCrops(MemoryDataModule):
    """128 training and 64 test crops of the two photographs, classes ``china`` and ``flower``, in memory.

    Args:
        batch_size: Images per batch.
        image_size: Side in pixels that the crops are resized to (bilinear, antialiased).
        crop: Side of the crops in the photographs, at most 240.
        augment: ``"none"`` or ``"shift"``.
        seed: Seed of the training order.
        limit: At most this many pictures of each split.
        drop_last: Leave an incomplete last training batch out.
        repeats: Copies of a picture per epoch, each augmented differently.
        num_workers: Accepted for uniformity; tensors in memory need no loader processes.
    """

    def __init__(
        self,
        batch_size: int = 16,
        image_size: int = 64,
        crop: int = 112,
        augment: str | None = "none",
        seed: int = 0,
        limit: int | None = None,
        drop_last: bool = False,
        repeats: int = 1,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            "photos",
            augment=augment,
            class_names=PHOTOS,
            image_size=image_size,
            in_chans=3,
            mean=0.5,
            std=0.5,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            limit=limit,
            drop_last=drop_last,
            repeats=repeats,
        )
        if not isinstance(crop, int) or not 8 <= crop <= LARGEST_CROP:
            raise UserError(f"data.crop={crop!r} must be in 8..{LARGEST_CROP} pixels: the test part is that wide")
        self.crop = crop

    def arrays(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Cut, resize and scale the crops to -1..1."""
        from sklearn.datasets import load_sample_image

        photos: list[Any] = [load_sample_image(f"{name}.jpg") for name in PHOTOS]
        splits = {}
        for split in COLUMNS:
            crops, labels = [], []
            for label, photo in enumerate(photos):
                pixels = torch.from_numpy(photo.copy()).permute(2, 0, 1).float() / 127.5 - 1
                for top, left, bottom, right in crop_boxes(split, self.crop, pixels.shape[1]):
                    crops.append(pixels[:, top:bottom, left:right])
                    labels.append(label)
            size = (self.image_size, self.image_size)
            images = F.interpolate(torch.stack(crops), size, mode="bilinear", align_corners=False, antialias=True)
            splits[split] = images.clamp(-1, 1), torch.tensor(labels)  # the filter's weights sum to 1 but for rounding
        return splits
