"""Training crops: where they lie and how they are flipped follows from a seed; low resolution is cut, not approximated.

A low-resolution crop made from a high-resolution crop alone would be wrong along its edges. Three pixels more on each
side are all that the cubic kernel sees, so the crop is exactly that of the whole picture.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from effkit.data.sampling import IGNORE
from effkit.errors import UserError
from shiftghost_sr.images.resampling import imresize
from shiftghost_sr.images.sets import Pair

__all__ = ["Crops", "Pictures", "low_crop"]

_AROUND = 3  # low-resolution pixels
Sample = tuple[Tensor, tuple[Tensor, int]]


def low_crop(high: NDArray, scale: int, top: int, left: int, side: int) -> NDArray:
    """A crop of ``imresize(high, 1 / scale)``, without making the whole.

    Args:
        high: uint8 ``(H, W, C)``, H and W multiples of ``scale``.
        scale: The factor.
        top: First row of the crop, in low-resolution pixels.
        left: First column.
        side: Rows and columns.
    """
    rows, columns = (
        (max(0, first - _AROUND), min(length // scale, first + side + _AROUND))
        for first, length in ((top, high.shape[0]), (left, high.shape[1]))
    )
    seen = high[rows[0] * scale : rows[1] * scale, columns[0] * scale : columns[1] * scale]
    low = imresize(seen, 1 / scale)
    y, x = top - rows[0], left - columns[0]
    return low[y : y + side, x : x + side]


class _Read(Dataset[Sample]):
    """Pictures of a split, kept once they were read as long as there is room.

    Args:
        pairs: The pictures.
        scale: The factor.
        memory: Bytes to keep at most, per process.
    """

    def __init__(self, pairs: list[Pair], scale: int, memory: int) -> None:
        self.pairs, self.scale, self.memory = pairs, scale, memory
        self._kept: dict[int, tuple[NDArray, NDArray | None]] = {}
        self._used = 0

    def read(self, index: int) -> tuple[NDArray, NDArray | None]:
        """Both forms of a picture, see :meth:`Pair.read`."""
        if index in self._kept:
            return self._kept[index]
        high, low = self.pairs[index].read(self.scale)
        size = high.nbytes + (0 if low is None else low.nbytes)
        if self._used + size <= self.memory:
            self._kept[index], self._used = (high, low), self._used + size
        return high, low


class Crops(_Read):
    """Random crops for training, by the keys ``(number, seed)`` of ``EpochSampler``.

    A sample is ``(low (3, p, p), (high (3, p * scale, p * scale), number))``, uint8; ``p = patch / scale``.

    Args:
        pairs: The pictures.
        scale: The factor.
        patch: Side of the high-resolution crop, a multiple of ``scale``.
        count: Crops per epoch; picture ``number % len(pairs)`` is cropped.
        augment: Whether to flip and transpose (eight forms).
        memory: Bytes of pictures to keep at most.
    """

    def __init__(
        self, pairs: list[Pair], scale: int, patch: int, count: int, *, augment: bool = True, memory: int = 1 << 30
    ) -> None:
        super().__init__(pairs, scale, memory)
        self.side, self.count, self.augment = patch // scale, count, augment

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Cut one crop."""
        number, seed = key
        index = number % len(self.pairs)
        high, low = self.read(index)
        scale, side = self.scale, self.side
        room = [length // scale - side for length in high.shape[:2]]
        if min(room) < 0:
            raise UserError(
                f"data.patch={side * scale} is larger than the picture {self.pairs[index].name!r} of "
                f"{high.shape[1]}x{high.shape[0]} pixels"
            )
        draw = np.random.default_rng(seed)
        top, left = (int(draw.integers(0, free + 1)) for free in room)
        small = low_crop(high, scale, top, left, side) if low is None else low[top : top + side, left : left + side]
        large = high[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
        form = int(draw.integers(0, 8)) if self.augment else 0
        return _tensor(_formed(small, form)), (_tensor(_formed(large, form)), number)


class Pictures(_Read):
    """Whole pictures for evaluation, by the keys of ``EpochSampler``; a sample is ``(low, (high, number))``.

    A filler of distributed evaluation has the number -1.

    Args:
        pairs: The pictures.
        scale: The factor.
        memory: Bytes of pictures to keep at most.
    """

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """One picture."""
        number = max(0, key[0])
        high, low = self.read(number)
        low = imresize(high, 1 / self.scale) if low is None else low
        return _tensor(low), (_tensor(high), IGNORE if key[0] == IGNORE else number)


def _formed(picture: NDArray, form: int) -> NDArray:
    """One of the eight flips and transposes."""
    if form & 1:
        picture = picture[::-1]
    if form & 2:
        picture = picture[:, ::-1]
    return picture.transpose(1, 0, 2) if form & 4 else picture


def _tensor(picture: NDArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
