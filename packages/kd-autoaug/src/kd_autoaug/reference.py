"""The operators again, naive: one picture, one pixel after the other, in Python's own numbers.

This is the specification in words that can be run; Pillow itself is what both are compared with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

__all__ = ["Named", "reference"]

Picture = list[list[list[int]]]  # [channel][row][column]
NEAREST, BICUBIC = 0, 3  # Pillow's numbers


class Named(Protocol):
    """An operator, known by its name in capitals, such as ``"SHEAR_X"``; a member of ``ops.Op`` is one."""

    @property
    def name(self) -> str:
        """The name."""


def reference(
    picture: Tensor,
    op: Named,
    arg: float = 0.0,
    *,
    interpolation: int = NEAREST,
    fill: Sequence[int] = (0,),
    box: Sequence[int] = (0, 0, 0, 0),
) -> list[list[list[int]]]:
    """Apply one operator to one picture.

    Args:
        picture: uint8 ``(C, H, W)``.
        op: The operator.
        arg: Its argument, see ``ops.ARGUMENTS``.
        interpolation: Pillow's number.
        fill: One value per channel.
        box: Of cutout.

    Returns:
        Nested lists ``[channel][row][column]``.
    """
    source: Picture = picture.tolist()
    name = op.name
    if name in ("SHEAR_X", "SHEAR_Y", "TRANSLATE_X", "TRANSLATE_Y", "ROTATE"):
        return _affine(source, _coefficients(name, arg, len(source[0]), len(source[0][0])), interpolation, fill)
    if name == "COLOR":
        grey = _grey(source)
        return [
            [[_blend(g, v, arg) for g, v in zip(*rows, strict=True)] for rows in zip(grey, p, strict=True)]
            for p in source
        ]
    if name == "SHARPNESS":
        return [_sharpen(plane, arg) for plane in source]
    if name == "CUTOUT":
        left, top, right, bottom = box
        return [
            [
                [f if left <= x < right and top <= y < bottom else v for x, v in enumerate(row)]
                for y, row in enumerate(p)
            ]
            for p, f in zip(source, fill, strict=True)
        ]
    if name == "GAUSSIAN_BLUR":
        return [_blur(plane, arg) for plane in source]
    tables = [_table(source, plane, name, arg) for plane in source]
    return [[[table[v] for v in row] for row in plane] for plane, table in zip(source, tables, strict=True)]


def _blur(plane: list[list[int]], sigma: float) -> list[list[int]]:
    """Three box blurs along the rows, three along the columns; the radius in single precision, as Pillow has it."""
    if sigma <= 0:
        return plane
    f = np.float32
    variance = f(sigma) * f(sigma) / f(3)
    whole = f(math.floor((float(f(math.sqrt(12.0 * float(variance) + 1.0))) - 1.0) / 2.0))
    part = (f(2) * whole + f(1)) * (whole * (whole + f(1)) - f(3) * variance)
    radius = whole + part / (f(6) * (variance - (whole + f(1)) * (whole + f(1))))
    for _ in range(2):
        for _ in range(3):
            plane = [_box(row, radius) for row in plane]
        plane = [list(column) for column in zip(*plane, strict=True)]
    return plane


def _box(row: list[int], radius: np.float32) -> list[int]:
    whole, last = int(radius), len(row) - 1
    inner = int(np.float32(1 << 24) / (radius * np.float32(2) + np.float32(1)))
    outer = ((1 << 24) - (whole * 2 + 1) * inner) // 2

    def at(x: int) -> int:
        return row[min(max(x, 0), last)]

    return [
        (
            inner * sum(at(x + k) for k in range(-whole, whole + 1))
            + outer * (at(x - whole - 1) + at(x + whole + 1))
            + (1 << 23)
        )
        >> 24
        for x in range(len(row))
    ]


def _blend(base: int, value: int, factor: float) -> int:
    f = np.float32
    mixed = f(base) + f(f(factor) * f(value - base))
    return int(min(max(mixed, f(0)), f(255)))


def _grey(source: Picture) -> list[list[int]]:
    if len(source) == 1:
        return source[0]
    rows = zip(*source, strict=True)
    return [[(19595 * r + 38470 * g + 7471 * b + 32768) >> 16 for r, g, b in zip(*row, strict=True)] for row in rows]


def _table(source: Picture, plane: list[list[int]], name: str, arg: float) -> list[int]:
    values, pixels = range(256), [v for row in plane for v in row]
    if name == "BRIGHTNESS":
        return [_blend(0, v, arg) for v in values]
    if name == "CONTRAST":
        grey = [v for row in _grey(source) for v in row]
        return [_blend(int(sum(grey) / len(grey) + 0.5), v, arg) for v in values]
    if name == "POSTERIZE":
        bits = min(8, max(0, int(arg)))
        return [v >> (8 - bits) << (8 - bits) for v in values]
    if name == "SOLARIZE":
        return [v if v < arg else 255 - v for v in values]
    if name == "SOLARIZE_ADD":
        return [min(255, max(0, v + int(arg))) if v < 128 else v for v in values]
    if name == "INVERT":
        return [255 - v for v in values]
    if name == "AUTOCONTRAST" and max(pixels) > min(pixels):
        scale = 255.0 / (max(pixels) - min(pixels))
        return [min(255, max(0, int(v * scale + -min(pixels) * scale))) for v in values]
    if name == "EQUALIZE":
        step = (len(pixels) - pixels.count(max(pixels))) // 255
        below = [sum(p < v for p in pixels) for v in values]
        return [min(255, (step // 2 + n) // step) for n in below] if step else list(values)
    return list(values)


def _sharpen(plane: list[list[int]], factor: float) -> list[list[int]]:
    out = [row[:] for row in plane]
    for y in range(1, len(plane) - 1):
        for x in range(1, len(plane[0]) - 1):
            around = sum(plane[y + j][x + i] for j in (-1, 0, 1) for i in (-1, 0, 1)) + 4 * plane[y][x]
            out[y][x] = _blend((2 * around + 13) // 26, plane[y][x], factor)
    return out


def _coefficients(name: str, arg: float, height: int, width: int) -> tuple[float, ...]:
    if name == "ROTATE":
        angle = -math.radians(arg % 360.0)
        cos, sin, minus = round(math.cos(angle), 15), round(math.sin(angle), 15), round(-math.sin(angle), 15)
        x, y = width / 2, height / 2
        return cos, sin, (cos * -x + sin * -y) + x, minus, cos, (minus * -x + cos * -y) + y
    place = {"SHEAR_X": 1, "TRANSLATE_X": 2, "SHEAR_Y": 3, "TRANSLATE_Y": 5}[name]
    numbers = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    numbers[place] = arg
    return tuple(numbers)


def _affine(source: Picture, numbers: tuple[float, ...], interpolation: int, fill: Sequence[int]) -> Picture:
    height, width = len(source[0]), len(source[0][0])
    out: Picture = [[[colour] * width for _ in range(height)] for colour in fill]
    for y in range(height):
        for x in range(width):
            for plane, result in zip(source, out, strict=True):
                if interpolation == NEAREST:
                    column, row = _nearest_place(numbers, x, y, height, width)
                    if 0 <= column < width and 0 <= row < height:
                        result[y][x] = plane[row][column]
                else:
                    value = _smooth(plane, numbers, x, y, 4 if interpolation == BICUBIC else 2)
                    result[y][x] = result[y][x] if value is None else value
    return out


def _nearest_place(numbers: tuple[float, ...], x: int, y: int, height: int, width: int) -> tuple[int, int]:
    a, b, c, d, e, f = numbers
    corners = [(0, 0), (width, height), (0, height), (width, 0)]
    near = all(abs(i * a + j * b + c) < 32768 and abs(i * d + j * e + f) < 32768 for i, j in corners)
    if (b == 0 and d == 0) or not near:
        return math.floor((c + b * 0.5 + a * 0.5) + b * y + a * x), math.floor((f + e * 0.5 + d * 0.5) + e * y + d * x)
    a_, b_, d_, e_ = (math.floor(v * 65536 + 0.5) for v in (a, b, d, e))
    c_, f_ = (math.floor(v * 65536 + 0.5) for v in (c + a * 0.5 + b * 0.5, f + d * 0.5 + e * 0.5))
    return (c_ + a_ * x + b_ * y) >> 16, (f_ + d_ * x + e_ * y) >> 16


def _smooth(plane: list[list[int]], numbers: tuple[float, ...], x: int, y: int, taps: int) -> int | None:
    a, b, c, d, e, f = numbers
    height, width = len(plane), len(plane[0])
    column, row = a * (x + 0.5) + b * (y + 0.5) + c, d * (x + 0.5) + e * (y + 0.5) + f
    if not (0 <= column < width and 0 <= row < height):
        return None
    column, row = column - 0.5, row - 0.5
    left, top = math.floor(column), math.floor(row)
    first = -1 if taps == 4 else 0
    rows = []
    for j in range(first, first + taps):
        line = plane[min(max(top + j, 0), height - 1)]
        rows.append(
            _interpolate([line[min(max(left + i, 0), width - 1)] for i in range(first, first + taps)], column - left)
        )
    return int(min(max(_interpolate(rows, row - top), 0.0), 255.0))


def _interpolate(v: list[float], at: float) -> float:
    if len(v) == 2:
        return v[0] + (v[1] - v[0]) * at
    return v[1] + at * (-v[0] + v[2] + at * (2 * (v[0] - v[1]) + v[2] - v[3] + at * (-v[0] + v[1] - v[2] + v[3])))
