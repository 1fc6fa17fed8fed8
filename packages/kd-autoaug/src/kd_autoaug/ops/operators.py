"""The operators by name and number, and what each one's argument means."""

from __future__ import annotations

from enum import IntEnum

from effkit.errors import choose

__all__ = ["ARGUMENTS", "BICUBIC", "BILINEAR", "INTERPOLATIONS", "NEAREST", "Kind", "Op", "kind_of", "operator"]


class Op(IntEnum):
    """An operator; its number is what tensors of operators hold."""

    IDENTITY = 0
    SHEAR_X = 1
    SHEAR_Y = 2
    TRANSLATE_X = 3
    TRANSLATE_Y = 4
    ROTATE = 5
    BRIGHTNESS = 6
    COLOR = 7
    CONTRAST = 8
    SHARPNESS = 9
    POSTERIZE = 10
    SOLARIZE = 11
    SOLARIZE_ADD = 12
    AUTOCONTRAST = 13
    EQUALIZE = 14
    INVERT = 15
    CUTOUT = 16
    GAUSSIAN_BLUR = 17


class Kind(IntEnum):
    """How an operator touches a picture; decides which code runs."""

    IDENTITY = 0
    AFFINE = 1
    LUT = 2
    COLOR = 3
    STENCIL = 4
    CUTOUT = 5
    BLUR = 6


ARGUMENTS: dict[Op, str] = {
    Op.IDENTITY: "none",
    Op.SHEAR_X: "pixels by which a row reads further right, per row below the top",
    Op.SHEAR_Y: "pixels by which a column reads further down, per column right of the left",
    Op.TRANSLATE_X: "pixels by which every row reads further right (the content moves left)",
    Op.TRANSLATE_Y: "pixels by which every column reads further down (the content moves up)",
    Op.ROTATE: "degrees counter-clockwise about the centre",
    Op.BRIGHTNESS: "factor: 0 is black, 1 the picture",
    Op.COLOR: "factor: 0 is grey, 1 the picture",
    Op.CONTRAST: "factor: 0 is the mean grey, 1 the picture",
    Op.SHARPNESS: "factor: 0 is smoothed, 1 the picture, 2 sharpened",
    Op.POSTERIZE: "bits kept: 0 is black, 8 and more the picture",
    Op.SOLARIZE: "threshold 0..256 from which values are inverted: 0 inverts all, 256 none",
    Op.SOLARIZE_ADD: "added to values below 128",
    Op.AUTOCONTRAST: "none",
    Op.EQUALIZE: "none",
    Op.INVERT: "none",
    Op.CUTOUT: "none: the box says where",
    Op.GAUSSIAN_BLUR: "standard deviation in pixels: 0 is the picture",
}

NEAREST, BILINEAR, BICUBIC = 0, 2, 3  # Pillow's numbers
INTERPOLATIONS: dict[str, int] = {"nearest": NEAREST, "bilinear": BILINEAR, "bicubic": BICUBIC}

_AFFINE = {Op.SHEAR_X, Op.SHEAR_Y, Op.TRANSLATE_X, Op.TRANSLATE_Y, Op.ROTATE}
_SPECIAL = {
    Op.IDENTITY: Kind.IDENTITY,
    Op.COLOR: Kind.COLOR,
    Op.SHARPNESS: Kind.STENCIL,
    Op.CUTOUT: Kind.CUTOUT,
    Op.GAUSSIAN_BLUR: Kind.BLUR,
}


def kind_of(op: Op) -> Kind:
    """How an operator touches a picture."""
    return Kind.AFFINE if op in _AFFINE else _SPECIAL.get(op, Kind.LUT)


def operator(name: str) -> Op:
    """The operator of a name such as ``"shear_x"``.

    Raises:
        UserError: If there is none; names the nearest.
    """
    return Op[choose("operator", name.lower(), [op.name.lower() for op in Op]).upper()]
