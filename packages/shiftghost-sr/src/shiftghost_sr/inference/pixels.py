"""Pixels of a picture to what a network takes, and back: grey or RGB, 8 or 16 bits, networks on RGB or on luma."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shiftghost_sr.images.colour import grey_of_y, with_luma, y_of_grey, y_of_rgb
from shiftghost_sr.images.picture import Picture
from shiftghost_sr.images.resampling import imresize_part
from shiftghost_sr.inference.tiles import Tile

__all__ = ["Pixels"]


class Pixels:
    """The colours of one picture, read and written tile by tile.

    Args:
        picture: The low-resolution picture; what is hidden under transparency already has sensible colours.
        scale: The network's factor.
        channels: The network's: 3 (RGB) or 1 (luma; colour differences are enlarged by cubic interpolation).
        enlarged: The network takes pictures that are enlarged already, by cubic interpolation.
        device: Where the network is.
        dtype: What it takes.

    Attributes:
        output: ``(H * scale, W * scale, C)`` of the picture's dtype, filled by :meth:`write`.
    """

    def __init__(
        self,
        picture: Picture,
        scale: int,
        channels: int,
        device: torch.device,
        dtype: torch.dtype,
        *,
        enlarged: bool = False,
    ) -> None:
        self.picture, self.scale, self.channels, self.enlarged = picture, scale, channels, enlarged
        self.device, self.dtype = device, dtype
        self.grey = picture.colour.shape[2] == 1
        height, width = picture.size
        self.output: NDArray = np.empty((height * scale, width * scale, picture.colour.shape[2]), picture.colour.dtype)

    def read(self, tile: Tile) -> Tensor:
        """What a tile sees as the network takes it, ``(1, channels, h, w)`` in 0..1."""
        if self.enlarged:
            values = self._cubic(tile.seen_rows, tile.seen_columns)
        else:
            part = self.picture.colour[slice(*tile.seen_rows), slice(*tile.seen_columns)]
            values = self._tensor(part.astype(np.float64) / self.picture.peak)
        if self.channels == 1:
            values = y_of_grey(values) if self.grey else y_of_rgb(values)
        elif self.grey:
            values = values.expand(-1, 3, -1, -1)
        return values.to(self.device, self.dtype).contiguous()

    def write(self, tile: Tile, result: Tensor) -> None:
        """Keep what a tile computed, rounded and clipped."""
        wide = torch.float64 if self.channels == 1 or result.dtype == torch.float64 else torch.float32
        values = result.to("cpu", wide)
        if self.channels == 1:
            values = grey_of_y(values) if self.grey else with_luma(self._cubic(tile.rows, tile.columns), values)
        elif self.grey:
            values = values.mean(1, keepdim=True)
        pixels = np.floor(values[0].permute(1, 2, 0).numpy() * self.picture.peak + 0.5)
        rows, columns = (slice(first * self.scale, last * self.scale) for first, last in (tile.rows, tile.columns))
        self.output[rows, columns] = np.clip(pixels, 0, self.picture.peak).astype(self.output.dtype)

    def alpha(self) -> NDArray | None:
        """Transparency, enlarged by cubic interpolation; ``None`` if there is none."""
        if self.picture.alpha is None:
            return None
        height, width = (length * self.scale for length in self.picture.size)
        enlarged = np.empty((height, width), self.picture.alpha.dtype)
        for first in range(0, height, 1024):  # in strips: a huge picture does not fit in double precision
            last = min(height, first + 1024)
            strip = imresize_part(self.picture.alpha, self.scale, (first, last), (0, width))
            enlarged[first:last] = np.clip(np.floor(strip + 0.5), 0, self.picture.peak)
        return enlarged

    def _tensor(self, pixels: NDArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]

    def _cubic(self, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
        """Colours of a part by cubic interpolation, ``(1, C, h * scale, w * scale)``."""
        places = ((first * self.scale, last * self.scale) for first, last in (rows, columns))
        return self._tensor(imresize_part(self.picture.colour, self.scale, *places) / self.picture.peak)
