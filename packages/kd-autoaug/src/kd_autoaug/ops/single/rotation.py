"""The map of a rotation in Python's own numbers: :mod:`kd_autoaug.ops.trigonometry` and ``ops.matrix``, step by step.

Each line is the same rounded operation of IEEE 754 as there, so the six numbers have the same bits; a rotation that
differed from the batch's in the last of them could move a pixel.
"""

from __future__ import annotations

import math
from functools import lru_cache

from kd_autoaug.ops import trigonometry as exact

__all__ = ["rotation"]

_KEPT = 1024  # a policy without noise turns by a few angles only
Numbers = tuple[float, float, float, float, float, float]


@lru_cache(maxsize=_KEPT)
def rotation(degrees: float, height: int, width: int) -> Numbers:
    """The map of ``Image.rotate`` about the centre, counter-clockwise.

    Args:
        degrees: The angle.
        height: Of the picture, in pixels.
        width: Likewise.

    Returns:
        The numbers a to f of :func:`kd_autoaug.ops.matrix.affine_coefficients`.
    """
    cos, sin = (round(v, 15) for v in _cos_sin(-(degrees % 360.0 * (math.pi / 180))))
    x, y = width / 2, height / 2
    return cos, sin, (cos * -x + sin * -y) + x, -sin, cos, (-sin * -x + cos * -y) + y


def _cos_sin(radians: float) -> tuple[float, float]:
    whole = round(radians * (2 / math.pi))
    quarter = float(whole)
    high = radians - quarter * exact._HALF_PI[0]
    step = quarter * exact._HALF_PI[1]
    middle = high - step
    low = ((high - middle) - step) - quarter * exact._HALF_PI[2]
    r = middle + low
    low = (middle - r) + low
    z, z_rest = _two_product(r, r)
    half = 0.5 * z
    near_one = 1.0 - half
    left = ((1.0 - near_one) - half) - 0.5 * z_rest
    cosine = near_one + (left + (z * z * _horner(exact._COSINE, z) - r * low))
    cube, cube_rest = _two_product(r, z)
    cube_rest = cube_rest + r * z_rest
    third, third_rest = _two_product(cube, -exact._SIXTH)
    third_rest = third_rest - cube_rest * exact._SIXTH - cube * exact._SIXTH_REST
    first = r + third
    left = (r - first) + third
    sine = first + (left + (third_rest + (cube * z * _horner(exact._SINE, z) + low * (1.0 - half))))
    turns = ((cosine, sine), (-sine, cosine), (-cosine, -sine), (sine, -cosine))
    return turns[whole & 3]


def _horner(coefficients: list[float], z: float) -> float:
    total = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        total = total * z + coefficient
    return total


def _two_product(a: float, b: float) -> tuple[float, float]:
    product = a * b
    a_high = a * exact._SPLIT - (a * exact._SPLIT - a)
    b_high = b * exact._SPLIT - (b * exact._SPLIT - b)
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
