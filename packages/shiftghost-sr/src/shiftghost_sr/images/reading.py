"""Picture files with nothing lost: 16 bits stay 16 bits, grey stays grey, transparency and profiles stay.

(The core's reader is another one: it makes 8-bit RGB of everything, as classifiers want it.)
What cannot be upscaled faithfully is refused in one line.
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from effkit.data.pictures import BUNDLED, UnreadablePicture, bundled_picture
from effkit.errors import UserError
from shiftghost_sr.images import png16
from shiftghost_sr.images.picture import Picture

__all__ = ["from_pil", "read_picture", "to_pil"]

_ORIENTATION = 0x0112
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, OverflowError, struct.error, zlib.error)
_PLAIN = {"1": "L", "L": "L", "RGB": "RGB", "LA": "LA", "RGBA": "RGBA", "RGBX": "RGB", "La": "LA", "RGBa": "RGBA"}


def read_picture(source: str | os.PathLike[str]) -> Picture:
    """Read a picture file.

    Args:
        source: A file, or the name of a bundled photograph (``effkit.data.BUNDLED``).

    Raises:
        FileNotFoundError: If there is no such file.
        UserError: If it is no picture, damaged, too large, or of a kind that cannot be upscaled faithfully.
    """
    name = os.fspath(source)
    if name in BUNDLED:
        return from_pil(bundled_picture(name))
    path = Path(name)
    if path.is_dir():
        raise UserError(f"{name!r} is a folder, not a picture")
    try:
        with open(path, "rb") as file:
            head = file.read(32)
    except FileNotFoundError:
        raise FileNotFoundError(f"the picture {name!r} does not exist") from None
    try:
        if png16.bit_depth(head) == 16:
            return _png(path.read_bytes())
        if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") and (deep := _tiff(path)) is not None:
            return deep
        return _by_pil(name)
    except UnreadablePicture:
        raise
    except UserError as error:
        raise UnreadablePicture(f"cannot read the picture {name!r}: {error}") from error
    except PermissionError:
        raise
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadablePicture(f"cannot read the picture {name!r}: {reason}") from error


def _by_pil(name: str) -> Picture:
    bombs: Any = (Image.DecompressionBombError,)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd EXIF data, and sizes that a tiled run is made for
            with Image.open(name) as image:
                image.load()
                return from_pil(image)
    except bombs as error:
        raise UnreadablePicture(f"the picture {name!r} is too large: {error}; cut it into parts first") from error
    except Image.UnidentifiedImageError as error:
        raise UnreadablePicture(f"the file {name!r} is not a picture that can be read") from error


def from_pil(image: Image.Image) -> Picture:
    """Take over a PIL picture, upright.

    Raises:
        UserError: If it is an animation, or of a mode whose pixels are not grey or RGB.
    """
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise UserError(f"it has {frames} frames or pages; split it, and upscale each")
    profile = image.info.get("icc_profile") or None
    image, exif = _upright(image)
    if image.mode.startswith("I;16"):
        return Picture(np.array(image).astype(np.uint16)[..., None], None, profile, exif)
    palette = image.mode == "P"
    if palette:
        mode = "RGBA" if image.has_transparency_data else "RGB"
    elif image.mode in _PLAIN:
        mode = _PLAIN[image.mode]
        if image.has_transparency_data and mode in ("L", "RGB"):  # one colour counts as transparent
            mode = {"L": "LA", "RGB": "RGBA"}[mode]
    else:
        raise UserError(f"its pixels are of the mode {image.mode}; save it as grey or RGB with 8 or 16 bits a channel")
    pixels = Picture.from_array(np.array(image.convert(mode)))
    return Picture(pixels.colour, pixels.alpha, profile, exif, palette=palette)


def to_pil(picture: Picture) -> Image.Image:
    """Give a picture to PIL.

    Raises:
        UserError: If it has 16 bits a channel and more than one channel: PIL has no such pictures.
    """
    array = picture.array
    if array.dtype == np.uint16 and array.ndim == 3:
        raise UserError("PIL has no pictures of 16 bits a channel with colours or transparency: save it as a file")
    image = Image.fromarray(np.ascontiguousarray(array))
    if picture.profile:
        image.info["icc_profile"] = picture.profile
    if picture.exif:
        image.info["exif"] = picture.exif
    return image


def _upright(image: Image.Image) -> tuple[Image.Image, bytes | None]:
    """Turn a picture as its EXIF data says; damaged EXIF data is dropped, and costs no pixel."""
    try:
        exif = image.getexif()
        orientation = exif.get(_ORIENTATION, 1)
        turned = ImageOps.exif_transpose(image) if orientation in range(2, 9) else image
        exif.pop(_ORIENTATION, None)
        return turned, (exif.tobytes() if len(exif) else None)
    except _DAMAGE:
        return image, None


def _png(content: bytes) -> Picture:
    pixels, chunks = png16.decode(content)
    alpha: NDArray | None = None
    if b"acTL" in chunks:
        raise UserError("it is an animation; split it, and upscale each frame")
    if pixels.shape[2] in (2, 4):
        pixels, alpha = pixels[..., :-1], pixels[..., -1]
    elif b"tRNS" in chunks:  # one colour counts as transparent
        key = np.frombuffer(chunks[b"tRNS"], ">u2")
        alpha = np.where((pixels == key).all(2), 0, 65535).astype(np.uint16)
    profile = None
    if b"iCCP" in chunks:
        profile = zlib.decompress(chunks[b"iCCP"].partition(b"\0")[2][1:])
    picture = Picture(pixels, alpha, profile, chunks.get(b"eXIf"))
    return _turned(picture)


def _tiff(path: Path) -> Picture | None:
    """A TIFF file of 16 bits a channel; ``None`` leaves it to PIL."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        if page.bitspersample != 16 and page.dtype != np.uint16:
            return None
        if len(file.pages) > 1:
            raise UserError(f"it has {len(file.pages)} frames or pages; split it, and upscale each")
        if page.dtype != np.uint16 or page.photometric not in (1, 2) or page.planarconfig not in (1, None):
            raise UserError("its 16-bit pixels are not plain grey or RGB; save it so, or as PNG")
        if 1 in page.extrasamples:
            raise UserError(
                "its colours are multiplied by its transparency; save it with unassociated alpha, or as PNG"
            )
        pixels = page.asarray()
        tags = {name: page.tags[name].value for name in ("InterColorProfile", "Orientation") if name in page.tags}
    plain = Picture.from_array(pixels)
    picture = Picture(plain.colour, plain.alpha, tags.get("InterColorProfile"))
    return _oriented(picture, int(tags.get("Orientation", 1)))


def _turned(picture: Picture) -> Picture:
    """Make the pixels of a picture upright as its raw EXIF data says, and the data say so."""
    if picture.exif is None:
        return picture
    exif = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exif.load(picture.exif)
            orientation = exif.pop(_ORIENTATION, 1)
            kept = exif.tobytes() if len(exif) else None
    except _DAMAGE:
        return Picture(picture.colour, picture.alpha, picture.profile)
    return _oriented(Picture(picture.colour, picture.alpha, picture.profile, kept), orientation)


def _oriented(picture: Picture, orientation: int) -> Picture:
    def turn(pixels: NDArray) -> NDArray:
        if orientation in (5, 6, 7, 8):
            pixels = np.swapaxes(pixels, 0, 1)
        if orientation in (3, 4, 7, 8):
            pixels = pixels[::-1]
        if orientation in (2, 3, 6, 7):
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels)

    alpha = None if picture.alpha is None else turn(picture.alpha)
    return picture.with_pixels(turn(picture.colour), alpha)
