"""Pictures to look at: the user's files, or photographs that ship with scikit-learn and scikit-image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from effkit.data.finding import find_pictures
from effkit.data.pictures import BUNDLED, load_picture
from effkit.errors import UserError

__all__ = ["BUNDLED", "load_photos"]


def load_photos(sources: Sequence[str | os.PathLike[str]], size: int = 96) -> dict[str, Tensor]:
    """Load pictures as squares: the shorter side resized, the centre kept, RGB.

    Args:
        sources: Files, folders (their picture files by name), patterns, or names in :data:`BUNDLED`.
        size: Side in pixels.

    Returns:
        uint8 ``(3, size, size)`` by name.

    Raises:
        FileNotFoundError: If there is no such file.
        UserError: If there is nothing to load, ``size`` is below 1, or a file is no picture.
    """
    if size < 1:
        raise UserError(f"size={size!r} must be at least 1 pixel")
    loaded: dict[str, Tensor] = {}
    for name in find_pictures(sources):
        stem, number = Path(name).stem, 2
        while stem in loaded:
            stem, number = f"{Path(name).stem}-{number}", number + 1
        square = ImageOps.fit(load_picture(name), (size, size), Image.Resampling.BICUBIC)
        loaded[stem] = torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()
    return loaded
