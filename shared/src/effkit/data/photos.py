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

from effkit.data.facts import FACTS
from effkit.data.memory import MemoryDataModule, to_bytes
from effkit.data.pictures import bundled_picture
from effkit.errors import UserError

__all__ = ["PHOTOS", "PhotoCrops", "crop_boxes"]

PHOTOS = FACTS["photos"].class_names
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
        **options: Those of every data set, see ``effkit.data.base.OPTIONS``.

    Raises:
        UserError: If a value is out of range.
    """

    kind = "photos"

    def __init__(
        self,
        batch_size: int = 16,
        image_size: int = 64,
        crop: int = 112,
        augment: str | None = "none",
        **options: Any,
    ) -> None:
        super().__init__(
            class_names=PHOTOS, batch_size=batch_size, image_size=image_size, in_chans=3, augment=augment, **options
        )
        if not isinstance(crop, int) or not 8 <= crop <= LARGEST_CROP:
            raise UserError(f"data.crop={crop!r} must be in 8..{LARGEST_CROP} pixels: the test part is that wide")
        self.crop = crop

    def arrays(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Cut the crops and resize them."""
        splits = {}
        for split in COLUMNS:
            crops, labels = [], []
            for label, photo in enumerate(PHOTOS):
                pixels = torch.from_numpy(np.array(bundled_picture(photo))).permute(2, 0, 1).float() / 127.5 - 1
                for top, left, bottom, right in crop_boxes(split, self.crop, pixels.shape[1]):
                    crops.append(pixels[:, top:bottom, left:right])
                    labels.append(label)
            size = self.preprocessing.size
            images = F.interpolate(torch.stack(crops), size, mode="bilinear", align_corners=False, antialias=True)
            splits[split] = to_bytes(images), torch.tensor(labels)
        return splits
