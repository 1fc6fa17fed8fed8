"""The one reader of pictures: for training, evaluation, prediction, distillation and previews, the same pixels.

Whatever a file holds becomes 8-bit RGB or grey: upright (EXIF), 16-bit grey scaled by 257, transparency composed on
white, the first frame of an animation. What cannot be read faithfully is refused by name, in one line.
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from effkit.errors import UserError

__all__ = ["BUNDLED", "Source", "UnreadablePicture", "bundled_picture", "load_picture", "wheel_picture"]

Source = str | os.PathLike[str] | Image.Image | np.ndarray

# Photograph -> the library whose wheel holds it. scikit-image's other pictures need a download and are left out.
BUNDLED = {
    "astronaut": "skimage",
    "chelsea": "skimage",
    "coffee": "skimage",
    "china": "sklearn",
    "flower": "sklearn",
}
_ORIENTATION = 0x0112
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, OverflowError, struct.error, zlib.error)


class UnreadablePicture(UserError):
    """A picture file that cannot be read; the message is one line, from a loader's worker process too.

    (torch makes a worker's exception anew from the whole traceback as text; the last line of it is the message.)
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rsplit(f"{type(self).__qualname__}: ", 1)[-1].strip())


def bundled_picture(name: str) -> Image.Image:
    """Load one of :data:`BUNDLED`."""
    if BUNDLED[name] == "sklearn":
        from sklearn.datasets import load_sample_image

        return Image.fromarray(load_sample_image(f"{name}.jpg"))
    import skimage.data

    return Image.fromarray(getattr(skimage.data, name)())


def wheel_picture(name: str) -> Image.Image:
    """Load a picture that lies in scikit-image's wheel, by the name of its file without the ending.

    Raises:
        UserError: If the installed version has no such picture.
    """
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    for suffix in (".png", ".jpg"):
        if (file := folder / f"{name}{suffix}").is_file():
            return load_picture(file)
    raise UserError(
        f"the installed scikit-image has no picture {name!r} in its wheel; install scikit-image 0.25 or 0.26"
    )


def _upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF data says; a picture whose EXIF data is damaged stays as it is."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
        return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image
    except _DAMAGE:
        return image


def _eight_bit(image: Image.Image) -> Image.Image:
    """Bring a picture to 8 bits a channel, without transparency."""
    if image.mode.startswith("I"):  # 16-bit grey; PIL would clip it at 255
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise UserError("its pixels are 32-bit numbers of unknown range; save it with 8 or 16 bits a channel")
        return Image.fromarray((deep / 257).astype(np.uint8))
    if image.mode == "F":
        raise UserError("its pixels are floating-point numbers of unknown range; save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image)
    return image


def _plain(image: Image.Image, mode: str) -> Image.Image:
    image = _eight_bit(_upright(image))
    return image if image.mode == mode else image.convert(mode)


def _from_array(pixels: np.ndarray) -> Image.Image:
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.ndim not in (2, 3) or channels not in (1, 3, 4) or pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"an array of shape {pixels.shape} and dtype {pixels.dtype} is no picture: give uint8 (or uint16 grey) "
            "pixels of shape (height, width) or (height, width, channels) with 1, 3 or 4 channels"
        )
    if pixels.dtype == np.uint16 and channels != 1:
        raise UserError("an array of 16-bit pixels must be grey; give coloured pixels as uint8")
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.ndim == 3 and channels == 1 else pixels))


def load_picture(source: Source, in_chans: int = 3) -> Image.Image:
    """Load a picture, upright (EXIF), on white where it is transparent; of an animation the first frame.

    Args:
        source: A name in :data:`BUNDLED`, a file, a PIL picture, or an array of bytes ``(H, W)`` or ``(H, W, C)``.
        in_chans: 3 for RGB (grey is repeated), 1 for grey (of colours the luma, ITU-R 601-2).

    Returns:
        A PIL picture of mode ``RGB`` or ``L``.

    Raises:
        FileNotFoundError: If there is no such file.
        UserError: If the file is no picture, is damaged or too large, or ``in_chans`` is another number.
    """
    if in_chans not in (1, 3):
        raise UserError(f"pictures have 3 channels (or 1 when grey), the model has in_chans={in_chans}")
    mode = "RGB" if in_chans == 3 else "L"
    if isinstance(source, np.ndarray):
        return _plain(_from_array(source), mode)
    if isinstance(source, Image.Image):
        return _plain(source, mode)
    name = os.fspath(source)
    if name in BUNDLED:
        return bundled_picture(name).convert(mode)
    if Path(name).is_dir():
        raise UserError(f"{name!r} is a folder, not a picture")
    return _read(name, mode)


def _read(name: str, mode: str) -> Image.Image:
    bombs: Any = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # odd EXIF data and the like, which cost no pixel
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(name) as image:
                image.load()
                return _plain(image, mode)
    except FileNotFoundError:
        raise FileNotFoundError(f"the picture {name!r} does not exist") from None
    except bombs as error:
        raise UnreadablePicture(f"the picture {name!r} is too large: {error}; make it smaller first") from error
    except Image.UnidentifiedImageError as error:
        raise UnreadablePicture(f"the file {name!r} is not a picture that PIL can read") from error
    except PermissionError:
        raise
    except _DAMAGE as error:  # PIL raises all of these for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadablePicture(f"cannot read the picture {name!r}: {reason}") from error
