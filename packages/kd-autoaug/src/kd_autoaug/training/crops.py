"""Random resized crops that are a function of (seed, sample, view), so that a cached answer stays that of its view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from effkit.errors import UserError, choose

__all__ = ["KeyedCrop"]

TRIES = 10  # as in torchvision, whose law of boxes this is
STREAM = 0x7C0F  # of the random numbers: far from the streams that augmentation takes


class KeyedCrop:
    """The random resized crop of Inception: a part of the picture, of random area and shape, resized to a square.

    Args:
        size: Side of the result in pixels.
        seed: Seed of all crops.
        scale: Area of the part as a fraction of the picture, (smallest, largest).
        ratio: Its width by its height, (smallest, largest).
        interpolation: ``"bilinear"`` or ``"bicubic"``.

    Raises:
        UserError: If a range is not one.
    """

    def __init__(
        self,
        size: int,
        seed: int = 0,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: str = "bicubic",
    ) -> None:
        for field, values, top in (("view.scale", scale, 1.0), ("view.ratio", ratio, math.inf)):
            if len(values) != 2 or not 0 < values[0] <= values[1] <= top:
                raise UserError(f"{field}={list(values)} must be two rising numbers above 0 and at most {top:g}")
        self.size, self.seed = size, seed
        self.scale, self.ratio = tuple(map(float, scale)), tuple(map(float, ratio))
        self.interpolation = choose("view.interpolation", interpolation, ["bilinear", "bicubic"])

    def box(self, width: int, height: int, index: int, view: int) -> tuple[int, int, int, int]:
        """The part of a picture that a view shows: left, top, right, bottom in pixels.

        The first of ten drawn parts that fits; if none does, the largest central part of an allowed shape.
        """
        from kd_autoaug.augmentation.rng import random_words, uniform

        words = random_words(self.seed, torch.tensor([index]), view, STREAM, 4 * TRIES)
        draws = uniform(words)[0].view(TRIES, 4).tolist()
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for area_draw, shape_draw, top_draw, left_draw in draws:
            area = width * height * (self.scale[0] + (self.scale[1] - self.scale[0]) * area_draw)
            shape = math.exp(low + (high - low) * shape_draw)
            w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if 0 < w <= width and 0 < h <= height:
                top, left = int(top_draw * (height - h + 1)), int(left_draw * (width - w + 1))
                return left, top, left + w, top + h
        shape = min(max(width / height, self.ratio[0]), self.ratio[1])
        w, h = min(width, max(1, round(height * shape))), min(height, max(1, round(width / shape)))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h

    def __call__(self, image: Any, index: int, view: int) -> Tensor:
        """Cut and resize a PIL picture: uint8 ``(C, size, size)``."""
        from PIL import Image
        from torchvision.transforms.functional import pil_to_tensor

        part = image.crop(self.box(image.width, image.height, index, view))
        resample = getattr(Image.Resampling, self.interpolation.upper())
        return pil_to_tensor(part.resize((self.size, self.size), resample))

    def describe(self) -> str:
        """All that decides what comes out, for fingerprints."""
        return f"rrc size={self.size} seed={self.seed} scale={self.scale} ratio={self.ratio} {self.interpolation}"
