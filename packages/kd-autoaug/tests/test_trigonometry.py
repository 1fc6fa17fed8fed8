"""Cosine and sine from sums and products, against the C library's."""

import math

import torch

from kd_autoaug.ops import Layer, Op
from kd_autoaug.ops.matrix import affine_coefficients
from kd_autoaug.ops.trigonometry import cos_sin, round_to_15_decimals

DEGREES = [*torch.linspace(-400, 400, 20_001, dtype=torch.float64).tolist(), *(float(d) for d in range(-360, 361))]
RADIANS = torch.tensor([-math.radians(d % 360.0) for d in DEGREES], dtype=torch.float64)


def test_within_a_unit_of_the_last_place():
    cos, sin = cos_sin(RADIANS)
    for found, exact in ((cos, math.cos), (sin, math.sin)):
        errors = [abs(f - exact(r)) / math.ulp(exact(r)) for f, r in zip(found.tolist(), RADIANS.tolist(), strict=True)]
        assert max(errors) <= 1.0
        assert sum(e > 0 for e in errors) < 0.01 * len(errors)  # all others are the C library's very bits


def test_rounding_is_pythons():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(20_000, generator=generator, dtype=torch.float64) * 2 - 1
    assert round_to_15_decimals(values).tolist() == [round(v, 15) for v in values.tolist()]


def test_rotations_of_whole_degrees_are_pillows():
    """The matrix of Image.rotate for every whole degree, bit by bit."""
    degrees = torch.arange(-360, 361, dtype=torch.float64)
    found = affine_coefficients(Layer.of(torch.full((len(degrees),), int(Op.ROTATE)), degrees), 33, 20)
    for numbers, angle in zip(found.tolist(), degrees.tolist(), strict=True):
        turned = -math.radians(angle % 360.0)
        cos, sin = round(math.cos(turned), 15), round(math.sin(turned), 15)
        x, y = 10.0, 16.5
        expected = [cos, sin, (cos * -x + sin * -y) + x, -sin, cos, (-sin * -x + cos * -y) + y]
        assert numbers == expected, angle
