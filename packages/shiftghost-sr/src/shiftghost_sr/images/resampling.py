"""MATLAB's ``imresize``, the resampling that super-resolution's low-resolution pictures are made with.

Cubic kernel with a = -0.5, stretched by the scale when shrinking, weights normalised, symmetric reflection at the
border. The dimension that shrinks most goes first, rows before columns where they are equal. Pictures of whole numbers
are rounded half up and clipped *between* the two passes too; without that results differ by a grey level now and then.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from effkit.errors import UserError

__all__ = ["imresize", "imresize_part", "mod_crop", "output_size", "taps"]

WIDTH = 4  # of the cubic kernel, in input pixels


def imresize(
    picture: NDArray, scale: float | Fraction | None = None, *, size: tuple[int, int] | None = None
) -> NDArray:
    """Resize a picture as MATLAB's ``imresize(picture, scale)`` does, with its antialiasing.

    Args:
        picture: ``(H, W)`` or ``(H, W, C)``; uint8 and uint16 are rounded and clipped, floating-point numbers are not.
        scale: Factor, e.g. ``2`` or ``1 / 3``; the result has ``ceil(H * scale)`` rows.
        size: Rows and columns of the result, instead of a factor.

    Returns:
        The resized picture, of the same dtype.

    Raises:
        UserError: If the picture is empty or of another kind, or neither or both of ``scale`` and ``size`` are given.
    """
    if picture.ndim not in (2, 3) or 0 in picture.shape:
        raise UserError(f"picture has the shape {picture.shape}, expected (H, W) or (H, W, C) with at least one pixel")
    whole = picture.dtype in (np.uint8, np.uint16)
    if not whole and picture.dtype not in (np.float32, np.float64):
        raise UserError(f"picture is of {picture.dtype}, expected uint8, uint16, float32 or float64")
    factors, sizes = _factors_and_sizes(picture.shape[:2], scale, size)
    result = picture
    for axis in sorted((0, 1), key=lambda a: factors[a]):  # stable: rows first where equal
        if result.shape[axis] == sizes[axis] and factors[axis] == 1:
            continue
        result = _along(result, axis, sizes[axis], factors[axis])
        if whole:
            result = np.clip(np.floor(result + 0.5), 0, np.iinfo(picture.dtype).max).astype(picture.dtype)
    return np.ascontiguousarray(result if result is not picture else picture.copy()).astype(picture.dtype, copy=False)


def imresize_part(picture: NDArray, scale: int, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray:
    """A part of what a whole-numbered enlargement in floating point gives, to the bit as in the whole.

    Args:
        picture: ``(H, W)`` or ``(H, W, C)`` of any numbers.
        scale: The factor, at least 1.
        rows: First and last row (exclusive) of the result that are wanted.
        columns: Likewise.

    Returns:
        float64 ``(rows, columns)`` or ``(rows, columns, C)``, neither rounded nor clipped.
    """
    result = picture
    for axis, (first, last) in enumerate((rows, columns)):
        length = picture.shape[axis]
        result = _along(result, axis, length * scale, float(scale), slice(first, last))
    return np.ascontiguousarray(result)


def taps(length: int, scale: int, first: int, last: int) -> tuple[NDArray, NDArray]:
    """What positions ``first`` to ``last`` (exclusive) of a line enlarged ``scale`` times are made of.

    Returns:
        Positions in the line of ``length``, int64 ``(last - first, taps)``, and how much each counts, float64 likewise.
    """
    index, weight = _contributions(length, length * scale, float(scale))
    return index[first:last], weight[first:last]


def output_size(length: int, scale: float | Fraction) -> int:
    """``ceil(length * scale)``, where a product that is a whole number but for rounding counts as that number."""
    exact = length * scale
    near = round(exact)
    return near if abs(float(exact - near)) < 1e-9 * max(1, length) and near else math.ceil(exact)


def mod_crop(picture: NDArray, scale: int) -> NDArray:
    """Cut a picture at the bottom and right to multiples of ``scale``, so that low and high resolution fit.

    Args:
        picture: ``(H, W)`` or ``(H, W, C)``.
        scale: The factor.

    Raises:
        UserError: If nothing is left.
    """
    height, width = (length - length % scale for length in picture.shape[:2])
    if not height or not width:
        raise UserError(f"a picture of {picture.shape[1]}x{picture.shape[0]} pixels is too small for scale={scale}")
    return picture[:height, :width]


def _factors_and_sizes(
    shape: tuple[int, ...], scale: float | Fraction | None, size: tuple[int, int] | None
) -> tuple[list[float], list[int]]:
    if (scale is None) == (size is None):
        raise UserError("imresize needs either scale or size, and not both")
    if size is not None:
        if len(size) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in size):
            raise UserError(f"size={size!r} must be two whole numbers of at least 1: rows, columns")
        return [n / length for n, length in zip(size, shape, strict=True)], list(size)
    assert scale is not None
    if isinstance(scale, bool) or not isinstance(scale, int | float | Fraction) or not 0 < scale < math.inf:
        raise UserError(f"scale={scale!r} must be a number above 0")
    return [float(scale)] * 2, [output_size(length, scale) for length in shape]


@functools.lru_cache(maxsize=256)
def _contributions(length: int, wanted: int, factor: float) -> tuple[NDArray, NDArray]:
    """For each of ``wanted`` positions, which input positions count ``(wanted, taps)`` and how much."""
    stretch = min(factor, 1.0)
    support = WIDTH / stretch
    place = np.arange(1, wanted + 1) / factor + 0.5 * (1 - 1 / factor)
    left = np.floor(place - support / 2)
    index = left[:, None] + np.arange(math.ceil(support) + 2)
    weight = stretch * _cubic(stretch * (place[:, None] - index))
    weight /= weight.sum(1, keepdims=True)
    around = np.concatenate([np.arange(length), np.arange(length)[::-1]])  # symmetric reflection
    used = np.any(weight != 0, axis=0)
    return around[np.mod(index.astype(np.int64) - 1, 2 * length)][:, used], weight[:, used]


def _cubic(x: NDArray) -> NDArray:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _along(picture: NDArray, axis: int, wanted: int, factor: float, part: slice = slice(None)) -> NDArray:
    index, weight = _contributions(picture.shape[axis], wanted, factor)
    index, weight = index[part], weight[part]
    moved = np.moveaxis(picture, axis, 0)
    first = int(index.min())
    moved = moved[first : int(index.max()) + 1].astype(np.float64)
    total = np.zeros((len(index), *moved.shape[1:]))
    shape = (-1,) + (1,) * (moved.ndim - 1)
    for tap in range(index.shape[1]):  # in order, as MATLAB adds
        total += weight[:, tap].reshape(shape) * moved[index[:, tap] - first]
    return np.moveaxis(total, 0, axis)
