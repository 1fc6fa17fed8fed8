"""The map of a rotation for one picture: :mod:`kd_autoaug.ops.trigonometry` and ``ops.matrix`` again, on the device.

Some two hundred small steps on a handful of numbers: as torch calls they would cost more than the pictures. Same order
of operations, nothing fused, hence the same bits.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import math

import triton
import triton.language as tl

from kd_autoaug.ops import trigonometry as exact

P0, P1, P2 = (tl.constexpr(x) for x in exact._HALF_PI)
S0, S1, S2, S3, S4, S5, S6, S7 = (tl.constexpr(x) for x in exact._SINE)
C0, C1, C2, C3, C4, C5, C6, C7, C8 = (tl.constexpr(x) for x in exact._COSINE)
SIXTH, SIXTH_REST = tl.constexpr(exact._SIXTH), tl.constexpr(exact._SIXTH_REST)
SPLIT = tl.constexpr(exact._SPLIT)
RADIANS, QUARTERS = tl.constexpr(math.pi / 180), tl.constexpr(2 / math.pi)
# Adding and taking away 1.5 x 2^52 rounds to the nearest whole number, half to even; triton has no function for it.
ROUND = tl.constexpr(1.5 * 2.0**52)


@triton.jit
def two_product(a, b):
    """``a * b`` as the sum of the rounded product and its error (Dekker)."""
    product = a * b
    a_high = a * SPLIT - (a * SPLIT - a)
    b_high = b * SPLIT - (b * SPLIT - b)
    a_low = a - a_high
    b_low = b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


@triton.jit
def sine_series(z):
    """Horner's rule; see ``trigonometry._SINE``."""
    return ((((((S7 * z + S6) * z + S5) * z + S4) * z + S3) * z + S2) * z + S1) * z + S0


@triton.jit
def cosine_series(z):
    """Horner's rule; see ``trigonometry._COSINE``."""
    return (((((((C8 * z + C7) * z + C6) * z + C5) * z + C4) * z + C3) * z + C2) * z + C1) * z + C0


@triton.jit
def near_zero(r, low):
    """Cosine and sine of r + low between -pi/4 and pi/4."""
    z, z_rest = two_product(r, r)
    half = 0.5 * z
    near_one = 1.0 - half
    left = ((1.0 - near_one) - half) - 0.5 * z_rest
    cosine = near_one + (left + (z * z * cosine_series(z) - r * low))
    cube, cube_rest = two_product(r, z)
    cube_rest = cube_rest + r * z_rest
    third, third_rest = two_product(cube, z * 0.0 - SIXTH)  # a tensor, so that the helper can split it
    third_rest = third_rest - cube_rest * SIXTH - cube * SIXTH_REST
    first = r + third
    left = (r - first) + third
    sine = first + (left + (third_rest + (cube * z * sine_series(z) + low * (1.0 - half))))
    return cosine, sine


@triton.jit
def cos_sin(radians):
    """Cosine and sine; see ``trigonometry.cos_sin``."""
    quarter = (radians * QUARTERS + ROUND) - ROUND
    high = radians - quarter * P0
    step = quarter * P1
    middle = high - step
    low = ((high - middle) - step) - quarter * P2
    r = middle + low
    low = (middle - r) + low
    cosine, sine = near_zero(r, low)
    turn = quarter.to(tl.int64) & 3
    odd = (turn & 1) == 1
    cos = tl.where(odd, sine, cosine)
    sin = tl.where(odd, cosine, sine)
    return tl.where((turn == 1) | (turn == 2), -cos, cos), tl.where(turn >= 2, -sin, sin)


@triton.jit
def round_to_15_decimals(value):
    """Python's ``round(value, 15)``; see ``trigonometry.round_to_15_decimals``."""
    product, error = two_product(value, value * 0.0 + 1e15)
    whole = (product + ROUND) - ROUND
    rest = (product - whole) + error
    whole = whole + tl.where(rest > 0.5, 1.0, 0.0) - tl.where(rest < -0.5, 1.0, 0.0)
    return whole / 1e15


@triton.jit
def rotation(degrees, height, width):
    """The six numbers of ``Image.rotate`` about the centre."""
    # The remainder by 360 with the sign of 360. Product and difference are exact but where torch rounds, too.
    rest = degrees - tl.floor(degrees / 360.0) * 360.0
    rest = tl.where(rest < 0.0, rest + 360.0, rest)
    cos, sin = cos_sin(-(rest * RADIANS))
    cos = round_to_15_decimals(cos)
    sin = round_to_15_decimals(sin)
    x = width.to(tl.float64) * 0.5
    y = height.to(tl.float64) * 0.5
    c = (cos * -x + sin * -y) + x
    f = (-sin * -x + cos * -y) + y
    return cos, sin, c, -sin, cos, f
