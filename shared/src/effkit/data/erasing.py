"""Random erasing of pictures that travel as bytes.

timm erases after normalisation: normal noise, which bytes cannot hold. So the worker draws the rectangle and its values
(at the same place of the picture's random stream as timm would) and sends them along; they are written into the batch
once it is normalised, on the device. What the network sees is what timm's transform gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate

__all__ = ["Erased", "ErasedPicture", "RandomErasing", "collate"]


class ErasedPicture(NamedTuple):
    """A picture in bytes, and what is to be written over a part of it once it is normalised.

    Attributes:
        image: uint8 ``(C, H, W)``.
        box: Top, left, height, width; ``None`` if nothing is erased.
        values: ``(C, height, width)``, or ``(C, 1, 1)`` for one colour.
    """

    image: Tensor
    box: tuple[int, int, int, int] | None
    values: Tensor | None


class Erased(NamedTuple):
    """The erased rectangles of a batch.

    Attributes:
        boxes: Number of the picture, top, left, height, width, and how many values it has.
        values: All values one after the other.
    """

    boxes: list[tuple[int, int, int, int, int, int]]
    values: Tensor

    def apply(self, images: Tensor) -> Tensor:
        """Write the rectangles into normalised pictures ``(B, C, H, W)``, in place."""
        parts = self.values.to(images).split([box[-1] for box in self.boxes])
        for (number, top, left, height, width, count), values in zip(self.boxes, parts, strict=True):
            shape = (height, width) if count == images.shape[1] * height * width else (1, 1)
            images[number, :, top : top + height, left : left + width] = values.view(-1, *shape)
        return images


class _Recorder:
    """Stands in for a picture that timm erases in, and keeps what was written where."""

    dtype = torch.float32

    def __init__(self, shape: torch.Size) -> None:
        self.shape = shape
        self.box: tuple[int, int, int, int] | None = None
        self.values: Tensor | None = None

    def size(self) -> torch.Size:
        return self.shape

    def __setitem__(self, key: tuple[slice, slice, slice], values: Tensor) -> None:
        _, rows, columns = key
        self.box = rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start
        self.values = values


class RandomErasing:
    """timm's random erasing, one rectangle at most, drawn now and written later.

    Args:
        probability: That a picture is erased in.
        mode: ``"pixel"`` noise, ``"rand"`` one colour, ``"const"`` zero (the mean).
    """

    def __init__(self, probability: float, mode: str = "pixel") -> None:
        from timm.data.random_erasing import RandomErasing as Timm

        self.probability, self.mode = probability, mode
        self._draw = Timm(probability, mode=mode, max_count=1, num_splits=0, device="cpu")

    def __call__(self, image: Tensor) -> ErasedPicture:
        """Draw for one picture, uint8 ``(C, H, W)``."""
        drawn = _Recorder(image.shape)
        self._draw(drawn)
        return ErasedPicture(image, drawn.box, drawn.values)


def collate(samples: Sequence[tuple[Any, Any]]) -> list[Any]:
    """Stack ``(picture, label)`` samples to ``[images, labels]``, and an :class:`Erased` where something is erased."""
    boxes, values, plain = [], [], []
    for number, (picture, label) in enumerate(samples):
        if isinstance(picture, ErasedPicture):
            if picture.box is not None and picture.values is not None:
                boxes.append((number, *picture.box, picture.values.numel()))
                values.append(picture.values.flatten())
            picture = picture.image
        plain.append((picture, label))
    images, labels = default_collate(plain)
    return [images, labels, Erased(boxes, torch.cat(values))] if boxes else [images, labels]
