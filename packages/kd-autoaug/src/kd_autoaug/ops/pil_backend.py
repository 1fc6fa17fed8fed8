"""The operators by Pillow itself, driven by our parameters: for large pictures on a CPU, and the bits to be equal to.

Planes are handed over without a copy, as pictures of mode L.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from kd_autoaug.ops.torch_backend import cutout

__all__ = ["affine", "color", "cutout", "gaussian_blur", "look_up", "sharpness"]


def _planes(images: Tensor) -> Iterator[list[Image.Image]]:
    """The planes of each picture as pictures of mode L that share its memory."""
    array = images.contiguous().numpy()
    height, width = array.shape[-2:]
    for picture in array:
        yield [Image.frombuffer("L", (width, height), plane.reshape(-1), "raw", "L", 0, 1) for plane in picture]


def _each(
    images: Tensor, change: Callable[[int, list[Image.Image]], Sequence[Image.Image]], out: Tensor | None = None
) -> Tensor:
    """Change every picture; all its new planes exist before the first is written, so ``out`` may be ``images``."""
    out = torch.empty_like(images, memory_format=torch.contiguous_format) if out is None else out
    array = out.numpy()
    for number, planes in enumerate(_planes(images)):
        for channel, plane in enumerate(change(number, planes)):
            array[number, channel] = np.asarray(plane)
    return out


def _merged(planes: list[Image.Image]) -> Image.Image:
    return planes[0] if len(planes) == 1 else Image.merge("RGB", planes)


def look_up(images: Tensor, tables: Tensor, out: Tensor | None = None) -> Tensor:
    """Replace every value by its entry; see ``torch_backend.look_up``."""
    entries = tables.tolist()
    return _each(images, lambda n, planes: [p.point(t) for p, t in zip(planes, entries[n], strict=True)], out)


def affine(
    images: Tensor, coefficients: Tensor, interpolation: Tensor, fill: tuple[int, ...], out: Tensor | None = None
) -> Tensor:
    """Sample every picture by its map; see ``affine_torch.affine``."""
    height, width = images.shape[-2:]
    numbers, filters = coefficients.tolist(), interpolation.tolist()
    colour: Any = fill[0] if len(fill) == 1 else tuple(fill)

    def change(n: int, planes: list[Image.Image]) -> Sequence[Image.Image]:
        # Interleaved: the map is then evaluated once for all channels.
        how = Image.Resampling(filters[n])
        moved = _merged(planes).transform(
            (width, height), Image.Transform.AFFINE, numbers[n], resample=how, fillcolor=colour
        )
        return moved.split()

    return _each(images, change, out)


def color(images: Tensor, factor: Tensor, out: Tensor | None = None) -> Tensor:
    """Blend every picture with its grey version; see ``torch_backend.color``."""
    if images.shape[1] == 1:
        return images
    factors = factor.tolist()

    def change(n: int, planes: list[Image.Image]) -> Sequence[Image.Image]:
        base = _merged(planes).convert("L")
        return [Image.blend(base, plane, factors[n]) for plane in planes]

    return _each(images, change, out)


def sharpness(images: Tensor, factor: Tensor, out: Tensor | None = None) -> Tensor:
    """Blend every picture with its smoothed version; see ``torch_backend.sharpness``."""
    factors = factor.tolist()

    def change(n: int, planes: list[Image.Image]) -> Sequence[Image.Image]:
        return [Image.blend(plane.filter(ImageFilter.SMOOTH), plane, factors[n]) for plane in planes]

    return _each(images, change, out)


def gaussian_blur(images: Tensor, sigma: Tensor, out: Tensor | None = None) -> Tensor:
    """Blur every picture; see ``blur.gaussian_blur``."""
    deviations = sigma.clamp(min=0).tolist()

    def change(n: int, planes: list[Image.Image]) -> Sequence[Image.Image]:
        return [plane.filter(ImageFilter.GaussianBlur(deviations[n])) for plane in planes]

    return _each(images, change, out)
