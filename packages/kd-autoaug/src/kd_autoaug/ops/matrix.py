"""The affine map of each picture, as Pillow computes it.

Output pixel (x, y) reads the input at (a x' + b y' + c, d x' + e y' + f) with x' = x + 0.5, y' = y + 0.5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kd_autoaug.ops.layers import Layer
from kd_autoaug.ops.operators import Op
from kd_autoaug.ops.trigonometry import cos_sin, round_to_15_decimals

LONGEST = 30000  # pixels of a side up to which a translation can be held in fixed point

__all__ = ["LONGEST", "affine_coefficients", "fits_fixed_point", "fixed_point"]


def _rotation(degrees: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    """``Image.rotate`` about the centre, counter-clockwise, in Pillow's own order of operations."""
    angle = -(torch.remainder(degrees, 360.0) * (math.pi / 180))
    cos, sin = cos_sin(angle)
    cos, sin = round_to_15_decimals(cos), round_to_15_decimals(sin)
    x, y = width / 2, height / 2
    c = (cos * -x + sin * -y) + x
    f = (-sin * -x + cos * -y) + y
    return cos, sin, c, -sin, cos, f


def affine_coefficients(layer: Layer, height: int, width: int) -> Tensor:
    """The six numbers a..f of every picture; those of the identity where the operator is not affine.

    Args:
        layer: One operator for each of B pictures.
        height: Of the pictures, in pixels.
        width: Likewise.

    Returns:
        Float64 ``(B, 6)`` on the layer's device, the same bits on every device.
    """
    op, arg = layer.op, layer.arg

    def where(which: Op, otherwise: float) -> Tensor:
        return torch.where(op == int(which), arg, otherwise)

    a, e = torch.ones_like(arg), torch.ones_like(arg)
    b, d = where(Op.SHEAR_X, 0.0), where(Op.SHEAR_Y, 0.0)
    c, f = where(Op.TRANSLATE_X, 0.0), where(Op.TRANSLATE_Y, 0.0)
    turned = op == int(Op.ROTATE)
    rotation = _rotation(torch.where(turned, arg, 0.0), height, width)
    return torch.stack([torch.where(turned, r, p) for r, p in zip(rotation, (a, b, c, d, e, f), strict=True)], 1)


def fits_fixed_point(coefficients: Tensor, height: int, width: int) -> Tensor:
    """Whether Pillow does nearest-neighbour sampling in 16.16 fixed point: no corner maps 32,768 pixels away.

    Args:
        coefficients: From :func:`affine_coefficients`.
        height: In pixels.
        width: In pixels.

    Returns:
        Bool ``(B,)``.
    """
    a, b, c, d, e, f = coefficients.unbind(1)
    good = torch.ones_like(a, dtype=torch.bool)
    for x, y in ((0, 0), (width, height), (0, height), (width, 0)):
        good &= (x * a + y * b + c).abs() < 32768.0
        good &= (x * d + y * e + f).abs() < 32768.0
    return good


def fixed_point(coefficients: Tensor) -> Tensor:
    """The map in 16.16 fixed point, for nearest-neighbour sampling: output (x, y) reads column (A x + B y + C) >> 16.

    Where neither axis depends on the other (translations, half turns), Pillow adds whole pixels in floating point
    instead: the fixed-point offset is then that of the pixel reached, without a fraction.

    Args:
        coefficients: From :func:`affine_coefficients`; a and e are 1 or -1 where b and d are 0.

    Returns:
        Int32 ``(B, 6)``: A, B, C of the column and of the row. Offsets are cut off at 32,000 pixels, which is outside
        any picture that a fixed-point number can hold.
    """
    a, b, c, d, e, f = coefficients.unbind(1)
    apart = (b == 0) & (d == 0)

    def scaled(value: Tensor) -> Tensor:
        return torch.floor(value * 65536.0 + 0.5)

    def offset(first: Tensor, second: Tensor, last: Tensor, own: Tensor) -> Tensor:
        whole = torch.floor(last + own * 0.5).clamp(-32000.0, 32000.0) * 65536.0
        return torch.where(apart, whole, scaled(last + first * 0.5 + second * 0.5))

    numbers = (scaled(a), scaled(b), offset(a, b, c, a), scaled(d), scaled(e), offset(d, e, f, e))
    # Pictures that do not fit are sampled in floating point; their numbers here only have to be some int32.
    return torch.stack(numbers, 1).clamp(-(2.0**31), 2.0**31 - 1).to(torch.int32)
