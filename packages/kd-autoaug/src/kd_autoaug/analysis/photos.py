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
from effkit.data.unreadable import Unreadable
from effkit.errors import UserError

__all__ = ["BUNDLED", "load_photos"]


def load_photos(
    sources: Sequence[str | os.PathLike[str]], size: int = 96, unreadable: Unreadable | None = None
) -> dict[str, Tensor]:
    """Load pictures as squares: the shorter side resized, the centre kept, RGB.

    Args:
        sources: Files, folders (their picture files by name), patterns, or names in :data:`BUNDLED`.
        size: Side in pixels.
        unreadable: Takes the names of those that cannot be read; if not given, the first one raises.

    Returns:
        uint8 ``(3, size, size)`` by name.

    Raises:
        FileNotFoundError: If there is no such file.
        UserError: If there is nothing to load, ``size`` is below 1, or a file is no picture.
    """
    if size < 1:
        raise UserError(f"size={size!r} must be at least 1 pixel")
    loaded: dict[str, Tensor] = {}
    found = find_pictures(sources)
    pictures = ((n, load_picture(n)) for n in found) if unreadable is None else unreadable.read(found, load_picture)
    for name, picture in pictures:
        stem, number = Path(name).stem, 2
        while stem in loaded:
            stem, number = f"{Path(name).stem}-{number}", number + 1
        square = ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
        loaded[stem] = torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()
    return loaded
