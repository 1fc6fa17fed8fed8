"""Sampling a tile of one picture by its affine map: nearest, bilinear and bicubic exactly as Pillow does it."""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import kernels

_common = kernels(__package__, "common_kernel")
read, to_byte = _common.read, _common.to_byte


@triton.jit
def channel_of(colour, channel):
    """One channel's value of a colour packed into an integer, eight bits each."""
    return (colour >> (8 * channel)) & 255


@triton.jit
def put(out_ptr, levels_ptr, channel, pixels, place, value, mask, LEVELS: tl.constexpr):
    """Write values 0..255 of one channel as bytes, or what stands for them in the table of levels."""
    out_ptr += channel * pixels + place
    if LEVELS:
        tl.store(out_ptr, tl.load(levels_ptr + channel * 256 + value), mask=mask)
    else:
        tl.store(out_ptr, value.to(tl.uint8), mask=mask)


@triton.jit
def take(
    picture_ptr,
    out_ptr,
    levels_ptr,
    pixels,
    place,
    mask,
    column,
    row,
    height,
    width,
    fill,
    CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr,
):
    """Read every pixel of the tile from a column and a row; what is outside gives the fill colour."""
    inside = mask & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = row * width + column
    for channel in tl.static_range(CHANNELS):
        value = tl.where(inside, read(picture_ptr + channel * pixels + source, inside), channel_of(fill, channel))
        put(out_ptr, levels_ptr, channel, pixels, place, value, mask, LEVELS)


@triton.jit
def fixed_positions(codes_ptr, x, y):
    """Column and row that each pixel reads, in 16.16 fixed point."""
    column = tl.load(codes_ptr + 1) * x + tl.load(codes_ptr + 3) + tl.load(codes_ptr + 2) * y
    row = tl.load(codes_ptr + 4) * x + tl.load(codes_ptr + 6) + tl.load(codes_ptr + 5) * y
    return column >> 16, row >> 16


@triton.jit
def whole(position):
    """A position as a whole number, -1 where it is negative; cut far beyond any picture."""
    return tl.minimum(tl.maximum(tl.floor(position), -1.0), 32767.0).to(tl.int32)


@triton.jit
def far_positions(numbers_ptr, x, y):
    """The same in floating point, which Pillow falls back to for maps too wide for fixed point."""
    a, b, c = tl.load(numbers_ptr), tl.load(numbers_ptr + 1), tl.load(numbers_ptr + 2)
    d, e, f = tl.load(numbers_ptr + 3), tl.load(numbers_ptr + 4), tl.load(numbers_ptr + 5)
    x = x.to(tl.float64)
    y = y.to(tl.float64)
    return whole((c + b * 0.5 + a * 0.5) + b * y + a * x), whole((f + e * 0.5 + d * 0.5) + e * y + d * x)


@triton.jit
def clipped(position, size):
    """The nearest place on an axis."""
    return tl.minimum(tl.maximum(position, 0), size - 1)


@triton.jit
def linear(first, second, at):
    """Between two values."""
    return (second - first) * at + first


@triton.jit
def cubic(v1, v2, v3, v4, at):
    """The cubic with a = -1 between the middle two of four values, in Pillow's order of operations."""
    p2 = -v1 + v3
    p3 = 2.0 * (v1 - v2) + v3 - v4
    p4 = -v1 + v2 - v3 + v4
    return v2 + at * (p2 + at * (p3 + at * p4))


@triton.jit
def neighbour(plane_ptr, row, column, height, width):
    """Values of a plane in float64; beyond an edge those on it."""
    return tl.load(plane_ptr + clipped(row, height) * width + clipped(column, width)).to(tl.float64)


@triton.jit
def linear_row(plane_ptr, row, left, at, height, width):
    """A row of neighbours, interpolated across."""
    first = neighbour(plane_ptr, row, left, height, width)
    return linear(first, neighbour(plane_ptr, row, left + 1, height, width), at)


@triton.jit
def cubic_row(plane_ptr, row, left, at, height, width):
    """A row of neighbours, interpolated across."""
    first = neighbour(plane_ptr, row, left - 1, height, width)
    second = neighbour(plane_ptr, row, left, height, width)
    third = neighbour(plane_ptr, row, left + 1, height, width)
    return cubic(first, second, third, neighbour(plane_ptr, row, left + 2, height, width), at)


@triton.jit
def smooth(
    picture_ptr,
    out_ptr,
    levels_ptr,
    numbers_ptr,
    pixels,
    first,
    height,
    width,
    fill,
    CUBIC: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    PART: tl.constexpr,
    LEVELS: tl.constexpr,
):
    """Bilinear or bicubic sampling of a tile in float64, truncated.

    By parts, because float64 needs many registers, and the other paths want large tiles.
    """
    a, b, c = tl.load(numbers_ptr), tl.load(numbers_ptr + 1), tl.load(numbers_ptr + 2)
    d, e, f = tl.load(numbers_ptr + 3), tl.load(numbers_ptr + 4), tl.load(numbers_ptr + 5)
    for start in range(0, BLOCK, PART):
        place = first + start + tl.arange(0, PART)
        mask = place < pixels
        x = (place % width).to(tl.float64) + 0.5
        y = (place // width).to(tl.float64) + 0.5
        column = a * x + b * y + c
        row = d * x + e * y + f
        inside = (column >= 0.0) & (column < width) & (row >= 0.0) & (row < height)
        column = tl.where(inside, column, 0.5) - 0.5  # where the result is not used, a place that exists
        row = tl.where(inside, row, 0.5) - 0.5
        left = tl.floor(column)
        top = tl.floor(row)
        dx = column - left
        dy = row - top
        left = left.to(tl.int32)
        top = top.to(tl.int32)
        for channel in tl.static_range(CHANNELS):
            plane_ptr = picture_ptr + channel * pixels
            if CUBIC:
                v1 = cubic_row(plane_ptr, top - 1, left, dx, height, width)
                v2 = cubic_row(plane_ptr, top, left, dx, height, width)
                v3 = cubic_row(plane_ptr, top + 1, left, dx, height, width)
                value = cubic(v1, v2, v3, cubic_row(plane_ptr, top + 2, left, dx, height, width), dy)
            else:
                above = linear_row(plane_ptr, top, left, dx, height, width)
                value = linear(above, linear_row(plane_ptr, top + 1, left, dx, height, width), dy)
            value = tl.where(inside, to_byte(value), channel_of(fill, channel))
            put(out_ptr, levels_ptr, channel, pixels, place, value, mask, LEVELS)
