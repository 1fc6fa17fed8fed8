"""Affine maps of one picture: translations in ways of their own, everything else by Pillow's ``transform``."""

from __future__ import annotations

import math
from typing import Any

from PIL import Image

from kd_autoaug.ops.matrix import LONGEST
from kd_autoaug.ops.operators import NEAREST, Op
from kd_autoaug.ops.single.rotation import rotation
from kd_autoaug.ops.single.sliding import slid

__all__ = ["moved"]

_AFFINE = Image.Transform.AFFINE
_ROTATE, _SHEAR_X, _SHEAR_Y, _TRANSLATE_X = int(Op.ROTATE), int(Op.SHEAR_X), int(Op.SHEAR_Y), int(Op.TRANSLATE_X)
_FILTERS = {int(how): how for how in (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)}


def moved(image: Image.Image, op: int, arg: float, how: int, fill: Any) -> Image.Image:
    """Shear, shift or turn a picture.

    Args:
        image: Of mode L or RGB.
        op: Number of an affine operator.
        arg: Its argument.
        how: Pillow's number of the interpolation.
        fill: Colour of what is left empty, as Pillow takes it.

    Returns:
        A new picture, or ``image`` where the map is the identity.
    """
    if arg == 0:  # every pixel reads itself, whatever the interpolation
        return image
    width, height = image.size
    if op == _ROTATE:
        numbers = rotation(arg, height, width)
    elif op == _SHEAR_X:
        numbers = (1.0, arg, 0.0, 0.0, 1.0, 0.0)
    elif op == _SHEAR_Y:
        numbers = (1.0, 0.0, 0.0, arg, 1.0, 0.0)
    else:
        across, down = (arg, 0.0) if op == _TRANSLATE_X else (0.0, arg)
        if how == NEAREST and max(width, height) <= LONGEST:
            return _shifted(image, math.floor(across + 0.5), math.floor(down + 0.5), fill)
        if how != NEAREST and (found := slid(image, arg, int(op == _TRANSLATE_X), how, fill)) is not None:
            return found
        numbers = (1.0, 0.0, across, 0.0, 1.0, down)
    return image.transform((width, height), _AFFINE, numbers, _FILTERS[how], fillcolor=fill)


def _shifted(image: Image.Image, across: int, down: int, fill: Any) -> Image.Image:
    """Pixel (x, y) reads (x + across, y + down)."""
    width, height = image.size
    out = Image.new(image.mode, image.size, fill)
    if abs(across) < width and abs(down) < height:
        out.paste(image, (-across, -down))
    return out
