"""Cosine and sine in float64 from additions and products alone: the same bits on every device.

The sine of a math library may differ from another's in the last bit, and so may the pictures turned by it. Here each
step is one rounded operation of IEEE 754, whose result no device is free to choose. It is so close to the exact value
that rounding to 15 decimals, as Pillow does, gives what the C library's sine gives (all but about 1 in 2,500 angles,
where the two differ by 1e-15: a ten-thousand-millionth of a pixel).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["cos_sin", "round_to_15_decimals"]

# pi/2 as the sum of three doubles; the first two have 33 bits: their products with a number of quarters are exact.
_HALF_PI = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)
# Taylor series of (sin r - r + r^3 / 6) / r^5 and (cos r - 1 + r^2 / 2) / r^4 in r^2; what is left out is below 1e-18.
_SINE = [(-1) ** k / math.factorial(2 * k + 5) for k in range(8)]
_COSINE = [(-1) ** k / math.factorial(2 * k + 4) for k in range(9)]
_SIXTH, _SIXTH_REST = 1 / 6, float.fromhex("0x1.5555555555555p-57")  # 1/6 as the sum of two doubles
_SPLIT = float(2**27 + 1)


def _horner(coefficients: list[float], z: Tensor) -> Tensor:
    total = torch.full_like(z, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * z + coefficient
    return total


def cos_sin(radians: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine.

    Args:
        radians: Angles, float64, any shape, at most some thousands.

    Returns:
        The two, float64.
    """
    quarter = torch.round(radians * (2 / math.pi))
    high = radians - quarter * _HALF_PI[0]
    step = quarter * _HALF_PI[1]
    middle = high - step
    # What rounding took from `middle`, and the rest of pi/2: the angle is r + low to far more than double precision.
    low = ((high - middle) - step) - quarter * _HALF_PI[2]
    r = middle + low
    low = (middle - r) + low
    z, z_rest = _two_product(r, r)
    return _turned(quarter.long() & 3, *_near_zero(r, low, z, z_rest))


def _near_zero(r: Tensor, low: Tensor, z: Tensor, z_rest: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of r + low between -pi/4 and pi/4; z + z_rest is the square of r."""
    half = 0.5 * z
    near_one = 1.0 - half
    left = ((1.0 - near_one) - half) - 0.5 * z_rest
    cosine = near_one + (left + (z * z * _horner(_COSINE, z) - r * low))
    cube, cube_rest = _two_product(r, z)
    cube_rest = cube_rest + r * z_rest
    third, third_rest = _two_product(cube, -_SIXTH)
    third_rest = third_rest - cube_rest * _SIXTH - cube * _SIXTH_REST
    first = r + third
    left = (r - first) + third
    sine = first + (left + (third_rest + (cube * z * _horner(_SINE, z) + low * (1.0 - half))))
    return cosine, sine


def _turned(quarter: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine after so many quarter turns."""
    odd = (quarter & 1).bool()
    cos, sin = torch.where(odd, sine, cosine), torch.where(odd, cosine, sine)
    cos = torch.where((quarter == 1) | (quarter == 2), -cos, cos)
    return cos, torch.where(quarter >= 2, -sin, sin)


def _two_product(a: Tensor, b: Tensor | float) -> tuple[Tensor, Tensor]:
    """``a * b`` as the sum of the rounded product and its error (Dekker)."""
    product = a * b
    a_high = a * _SPLIT - (a * _SPLIT - a)
    b_high = b * _SPLIT - (b * _SPLIT - b)
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def round_to_15_decimals(values: Tensor) -> Tensor:
    """What Python's ``round(value, 15)`` gives.

    Args:
        values: Float64 between -1 and 1.
    """
    product, error = _two_product(values, 1e15)
    whole = torch.round(product)
    rest = (
        product - whole
    ) + error  # the product itself is rounded to an eighth, which would decide close cases wrongly
    whole = whole + (rest > 0.5).double() - (rest < -0.5).double()
    # By a tensor: dividing by a number is multiplying by its inverse on some devices.
    return whole / torch.full_like(whole, 1e15)
