"""Small pictures that depend on nothing but the arguments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["tiny_images", "write_image_folder"]


def tiny_images(batch: int = 2, in_chans: int = 3, size: int = 32, *, seed: int = 0, dtype: Any = None) -> Tensor:
    """Return ``(batch, in_chans, size, size)`` standard-normal pixels that depend on nothing but the arguments."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, in_chans, size, size, generator=generator, dtype=torch.float64).to(dtype or torch.float32)


def write_image_folder(
    root: Path,
    *,
    splits: Sequence[str] = ("train", "val"),
    classes: Sequence[str] = ("cat", "dog"),
    count: int = 4,
    size: tuple[int, int] = (40, 48),
    suffix: str = "png",
) -> Path:
    """Write a folder of pictures as ``data=imagefolder`` expects it; classes differ in colour, so they can be learnt.

    Args:
        root: The folder to fill.
        splits: Sub-folders.
        classes: Folders in each of them.
        count: Pictures per class and split.
        size: Height and width in pixels.
        suffix: File type, ``png`` or ``jpg``.

    Returns:
        ``root``.
    """
    from PIL import Image

    for s, split in enumerate(splits):
        for c, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                generator = torch.Generator().manual_seed(1000 * s + 100 * c + i)
                pixels = torch.randint(0, 96, (*size, 3), generator=generator)
                pixels[..., c % 3] += 128
                Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / f"{i}.{suffix}")
    return root
