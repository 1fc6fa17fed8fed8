"""Pictures to look at: the user's files, or photographs that ship with scikit-learn and scikit-image."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from effkit.errors import UserError

__all__ = ["BUNDLED", "load_photos"]

# Photograph -> the library whose wheel holds it.
BUNDLED = {"astronaut": "skimage", "chelsea": "skimage", "coffee": "skimage", "china": "sklearn", "flower": "sklearn"}
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


def load_photos(sources: Sequence[str | os.PathLike[str]], size: int = 96) -> dict[str, Tensor]:
    """Load pictures as squares: the shorter side resized, the centre kept, RGB.

    Args:
        sources: Files, folders (their picture files by name), or names in :data:`BUNDLED`.
        size: Side in pixels.

    Returns:
        uint8 ``(3, size, size)`` by name.

    Raises:
        UserError: If there is nothing to load, ``size`` is below 1, or a file is no picture.
    """
    if size < 1:
        raise UserError(f"size={size!r} must be at least 1 pixel")
    found: list[str] = []
    for source in sources:
        name, path = os.fspath(source), Path(source).expanduser()
        if name in BUNDLED or path.is_file():
            found.append(name if name in BUNDLED else str(path))
        elif path.is_dir():
            found += sorted(str(p) for p in path.iterdir() if p.suffix.lower() in _SUFFIXES and p.is_file())
        else:
            raise UserError(f"images={name!r} does not exist; give files, folders, or some of {', '.join(BUNDLED)}")
    if not found:
        raise UserError(f"images={list(map(str, sources))} hold no pictures; give files or {', '.join(BUNDLED)}")
    loaded: dict[str, Tensor] = {}
    for name in found:
        stem, number = Path(name).stem, 2
        while stem in loaded:
            stem, number = f"{Path(name).stem}-{number}", number + 1
        square = ImageOps.fit(_open(name), (size, size), Image.Resampling.BICUBIC)
        loaded[stem] = torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()
    return loaded


def _open(name: str) -> Image.Image:
    if BUNDLED.get(name) == "sklearn":
        from sklearn.datasets import load_sample_image

        return Image.fromarray(load_sample_image(f"{name}.jpg"))
    if name in BUNDLED:
        import skimage.data

        return Image.fromarray(getattr(skimage.data, name)())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(name) as image:
                return ImageOps.exif_transpose(image).convert("RGB")
    except Image.UnidentifiedImageError as error:
        raise UserError(f"images={name!r} is not a picture that Pillow can read") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(f"images={name!r} cannot be read: {error}") from error
