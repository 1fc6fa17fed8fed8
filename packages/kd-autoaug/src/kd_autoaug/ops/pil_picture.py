"""One Pillow picture by Pillow's public functions: what everything else is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from kd_autoaug.ops.operators import Op

__all__ = ["pillow"]

_ENHANCERS: dict[Op, Any] = {
    Op.BRIGHTNESS: ImageEnhance.Brightness,
    Op.COLOR: ImageEnhance.Color,
    Op.CONTRAST: ImageEnhance.Contrast,
    Op.SHARPNESS: ImageEnhance.Sharpness,
}
_PLAIN: dict[Op, Any] = {
    Op.AUTOCONTRAST: ImageOps.autocontrast,
    Op.EQUALIZE: ImageOps.equalize,
    Op.INVERT: ImageOps.invert,
}


def pillow(
    image: Image.Image, op: Op, arg: float, interpolation: int, fill: Sequence[int], box: Sequence[int]
) -> Image.Image:
    """What Pillow's own functions make of a picture.

    Two operators are not Pillow's: ``solarize_add`` is a table handed to ``Image.point``, cutout a drawn rectangle.
    Posterize with 0 bits, which Pillow refuses, is black, and with more than 8 the picture.
    """
    how = Image.Resampling(interpolation)
    colour = fill[0] if image.mode == "L" else tuple(fill)
    matrix = {
        Op.SHEAR_X: (1, arg, 0, 0, 1, 0),
        Op.SHEAR_Y: (1, 0, 0, arg, 1, 0),
        Op.TRANSLATE_X: (1, 0, arg, 0, 1, 0),
        Op.TRANSLATE_Y: (1, 0, 0, 0, 1, arg),
    }.get(op)
    if matrix is not None:
        return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=how, fillcolor=colour)
    if op == Op.ROTATE:
        return image.rotate(arg, resample=how, fillcolor=colour)
    if op in _ENHANCERS:
        return _ENHANCERS[op](image).enhance(arg)
    if op in _PLAIN:
        return _PLAIN[op](image)
    if op == Op.POSTERIZE:
        bits = int(arg)
        return image.point([0] * 256 * len(image.getbands())) if bits <= 0 else ImageOps.posterize(image, min(bits, 8))
    if op == Op.SOLARIZE:
        return ImageOps.solarize(image, arg)  # type: ignore[arg-type]  # any number works as a threshold
    if op == Op.SOLARIZE_ADD:
        table = [min(255, max(0, v + int(arg))) if v < 128 else v for v in range(256)]
        return image.point(table * len(image.getbands()))
    if op == Op.GAUSSIAN_BLUR:
        return image.filter(ImageFilter.GaussianBlur(max(0.0, arg)))
    image = image.copy()
    left, top, right, bottom = box
    if op == Op.CUTOUT and right > max(left, 0) and bottom > max(top, 0):
        ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), fill=colour)
    return image
