"""Which picture is it: grey patches of 17 pictures that ship with scikit-image, the splits apart by columns.

Training patches come from the left 60 % of each picture, validation patches from columns 62 to 80 %, test patches from
82 % on, so that no pixel is in two splits. Every patch is brought to mean 0 and deviation 1 of its own: brightness and
contrast tell nothing, and what is left is structure, of which a larger picture side shows more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from effkit.data.facts import FACTS
from effkit.data.memory import MemoryDataModule, to_bytes
from effkit.data.pictures import wheel_picture
from effkit.errors import UserError

__all__ = ["TEXTURES", "Textures", "columns", "patch_boxes"]

TEXTURES = FACTS["textures"].class_names
SHARES = {"train": (0.0, 0.6), "val": (0.62, 0.8), "test": (0.82, 1.0)}
GRID = {"train": (10, 15), "val": (6, 10), "test": (6, 10)}  # rows, columns of patches in each picture
LARGEST_PATCH = 69  # 18 % of the narrowest picture
DEVIATIONS = 3.0  # of a patch, that bytes hold


def columns(split: str, width: int) -> tuple[int, int]:
    """First and last column (exclusive) of a split in a picture ``width`` pixels wide."""
    first, last = SHARES[split]
    return round(first * width), round(last * width)


def patch_boxes(split: str, patch: int, height: int, width: int) -> list[tuple[int, int]]:
    """Return ``(top, left)`` of each patch of one picture, evenly spread over the split's columns.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        patch: Side of a patch.
        height: Of the picture.
        width: Of the picture.
    """
    (left, right), (rows, count) = columns(split, width), GRID[split]
    tops = np.linspace(0, height - patch, rows).round().astype(int)
    lefts = np.linspace(left, right - patch, count).round().astype(int)
    return [(int(t), int(x)) for t in tops for x in lefts]


def _grey(name: str) -> Tensor:
    """A picture as grey levels 0..1, ``(H, W)`` in double precision."""
    pixels = torch.from_numpy(np.array(wheel_picture(name))).double() / 255
    return pixels @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)


class Textures(MemoryDataModule):
    """2,550 training, 1,020 validation and 1,020 test patches of 17 pictures, in memory.

    Args:
        batch_size: Images per batch.
        image_size: Side in pixels that patches are resized to (bilinear, antialiased).
        in_chans: How often the grey channel is repeated.
        patch: Side of the patches in the pictures, 8 to 69.
        augment: ``"none"`` or ``"shift"``.
        **options: Those of every data set, see ``effkit.data.base.OPTIONS``.

    Raises:
        UserError: If a value is out of range.
    """

    kind = "textures"

    def __init__(
        self,
        batch_size: int = 64,
        image_size: int = 32,
        in_chans: int = 1,
        patch: int = 32,
        augment: str | None = "none",
        **options: Any,
    ) -> None:
        super().__init__(
            class_names=TEXTURES, batch_size=batch_size, image_size=image_size, in_chans=in_chans, augment=augment,
            **options,
        )  # fmt: skip
        if isinstance(patch, bool) or not isinstance(patch, int) or not 8 <= patch <= LARGEST_PATCH:
            raise UserError(f"data.patch={patch!r} must be in 8..{LARGEST_PATCH} pixels: the test part is that wide")
        self.patch = patch

    def arrays(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Cut the patches, standardise and resize them."""
        grey = [_grey(name) for name in TEXTURES]
        splits = {}
        for split in SHARES:
            patches, labels = [], []
            for label, pixels in enumerate(grey):
                for top, left in patch_boxes(split, self.patch, *pixels.shape):
                    patches.append(pixels[top : top + self.patch, left : left + self.patch])
                    labels.append(label)
            images = torch.stack(patches)[:, None]
            mean, deviation = images.mean((2, 3), keepdim=True), images.std((2, 3), keepdim=True)
            images = ((images - mean) / deviation.clamp_min(1e-3)).float()
            size = self.preprocessing.size
            if size != (self.patch, self.patch):
                images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
            splits[split] = to_bytes(images / DEVIATIONS).repeat(1, self.in_chans, 1, 1), torch.tensor(labels)
        return splits
