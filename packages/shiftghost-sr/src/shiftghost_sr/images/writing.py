"""Picture files written whole or not at all, with bit depth, transparency, profile and EXIF data as the picture has."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from effkit.atomic import atomic
from effkit.errors import UserError, choose
from shiftghost_sr.images import png16
from shiftghost_sr.images.picture import Picture
from shiftghost_sr.images.reading import to_pil

__all__ = ["WRITABLE", "check_fits", "suffix_for", "write_picture"]

WRITABLE = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm")
_JPEG = (".jpg", ".jpeg", ".jfif")
_OPAQUE = (*_JPEG, ".bmp", ".ppm", ".pgm")
_DEEP = (".png", ".tif", ".tiff")
_LARGEST = {**dict.fromkeys(_JPEG, 65535), ".webp": 16383}  # pixels a side


def suffix_for(source: Path) -> str:
    """How the upscaled form of a file ends if nobody says otherwise: as the file does, where that can be written."""
    suffix = source.suffix.lower()
    return source.suffix if suffix in WRITABLE else ".png"


def check_fits(picture: Picture, path: Path, *, factor: int = 1) -> None:
    """Ask whether a kind of file can hold a picture, before the work.

    Args:
        picture: What is to be written, or what it is made from.
        path: Where to.
        factor: How many times larger it will be a side.

    Raises:
        UserError: If it cannot; names what would be lost.
    """
    suffix = choose("suffix", path.suffix.lower(), WRITABLE)
    instead = "write .png instead"
    if picture.alpha is not None and suffix in _OPAQUE:
        raise UserError(f"a {suffix} file holds no transparency: {instead}")
    if picture.colour.dtype == np.uint16 and suffix not in _DEEP:
        raise UserError(f"a {suffix} file holds no 16 bits a channel: {instead}")
    if suffix == ".pgm" and picture.colour.shape[2] != 1:
        raise UserError(f"a .pgm file holds no colours: {instead}")
    largest, side = _LARGEST.get(suffix), max(picture.size) * factor
    if largest is not None and side > largest:
        raise UserError(f"a {suffix} file holds at most {largest} pixels a side, not {side}: {instead}")


def write_picture(picture: Picture, path: str | os.PathLike[str], *, quality: int = 95) -> Path:
    """Write a picture file, whole or not at all.

    Args:
        picture: The picture.
        path: Where to; its ending says the format, one of :data:`WRITABLE`.
        quality: Of JPEG, 1..100; colours are not subsampled. WebP is written without loss.

    Returns:
        The path.

    Raises:
        UserError: If the format cannot hold the picture.
        OSError: If it cannot be written.
    """
    path = Path(path)
    check_fits(picture, path)
    content = _encoded(picture, path.suffix.lower(), quality)
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return path


def _encoded(picture: Picture, suffix: str, quality: int) -> bytes:
    if picture.colour.dtype == np.uint16:
        return _png(picture) if suffix == ".png" else _tiff(picture)
    options: dict[str, Any] = {}
    if picture.profile and suffix not in (".bmp", ".ppm", ".pgm"):
        options["icc_profile"] = picture.profile
    if picture.exif and suffix not in (".bmp", ".ppm", ".pgm"):
        options["exif"] = picture.exif
    if suffix in _JPEG:
        options |= {"quality": quality, "subsampling": 0}
    if suffix == ".webp":
        options |= {"lossless": True, "exact": True}
    if suffix in (".tif", ".tiff"):
        options["compression"] = "tiff_adobe_deflate"
    buffer = io.BytesIO()
    to_pil(picture).save(buffer, format=Image.registered_extensions()[suffix], **options)
    return buffer.getvalue()


def _png(picture: Picture) -> bytes:
    chunks = {}
    if picture.profile:
        chunks[b"iCCP"] = b"ICC Profile\0\0" + zlib.compress(picture.profile)
    if picture.exif:
        chunks[b"eXIf"] = picture.exif.removeprefix(b"Exif\0\0")
    array = picture.array
    return png16.encode(array.reshape(*array.shape[:2], -1), chunks)


def _tiff(picture: Picture) -> bytes:
    import tifffile

    grey = picture.colour.shape[2] == 1
    buffer = io.BytesIO()
    tags = []
    if picture.profile:
        tags.append((34675, 7, len(picture.profile), picture.profile, True))
    tifffile.imwrite(
        buffer,
        picture.array,
        photometric="minisblack" if grey else "rgb",
        planarconfig="contig",
        extrasamples=None if picture.alpha is None else ["unassalpha"],
        compression="zlib",
        metadata=None,
        extratags=tags,
    )
    return buffer.getvalue()
