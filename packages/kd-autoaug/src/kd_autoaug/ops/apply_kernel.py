"""Write every pixel of a layer: one program per tile of one picture, which follows that picture's path."""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import kernels

_common, _sampling = kernels(__package__, "common_kernel"), kernels(__package__, "sampling_kernel")
LOOK_UP, COLOR, STENCIL, CUTOUT = _common.LOOK_UP, _common.COLOR, _common.STENCIL, _common.CUTOUT
NEAREST_FIXED, NEAREST_FLOAT = _common.NEAREST_FIXED, _common.NEAREST_FLOAT
BILINEAR, BICUBIC = _common.BILINEAR, _common.BICUBIC
CODES, NUMBERS, ARGUMENT = _common.CODES, _common.NUMBERS, _common.ARGUMENT
blend, grey, read = _common.blend, _common.grey, _common.read
channel_of, put, take, smooth = _sampling.channel_of, _sampling.put, _sampling.take, _sampling.smooth
fixed_positions, far_positions = _sampling.fixed_positions, _sampling.far_positions


@triton.jit
def smoothed(plane_ptr, place, centre, inner, width):
    """The kernel (1 1 1; 1 5 1; 1 1 1) / 13, rounded half up; the outermost pixels keep their values."""
    total = centre * 4
    for down in tl.static_range(-1, 2):
        for right in tl.static_range(-1, 2):
            total += read(plane_ptr + place + (down * width + right), inner)
    return tl.where(inner, (2 * total + 13) // 26, centre)


@triton.jit(do_not_specialize=["height", "width", "fill", "patch"])
def apply_kernel(
    images_ptr,
    out_ptr,
    tables_ptr,
    codes_ptr,
    numbers_ptr,
    levels_ptr,
    tiles,
    pixels,
    height,
    width,
    fill,
    patch,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    PART: tl.constexpr,
    LEVELS: tl.constexpr,
):
    """One operator on one tile."""
    picture = (tl.program_id(0) // tiles).to(tl.int64)
    first = tl.program_id(0) % tiles * BLOCK
    images_ptr += picture * CHANNELS * pixels
    out_ptr += picture * CHANNELS * pixels
    codes_ptr += picture * CODES
    numbers_ptr += picture * NUMBERS
    path = tl.load(codes_ptr)
    place = first + tl.arange(0, BLOCK)
    mask = place < pixels
    if path == LOOK_UP:
        tables_ptr += picture * (CHANNELS * 256)
        for channel in tl.static_range(CHANNELS):
            value = read(images_ptr + channel * pixels + place, mask)
            value = tl.load(tables_ptr + channel * 256 + value).to(tl.int32)
            put(out_ptr, levels_ptr, channel, pixels, place, value, mask, LEVELS)
    elif path == COLOR:
        factor = tl.load(numbers_ptr + ARGUMENT).to(tl.float32)
        base = grey(images_ptr, pixels, place, mask, CHANNELS)
        for channel in tl.static_range(CHANNELS):
            value = blend(base, read(images_ptr + channel * pixels + place, mask), factor)
            put(out_ptr, levels_ptr, channel, pixels, place, value, mask, LEVELS)
    elif path == STENCIL:
        factor = tl.load(numbers_ptr + ARGUMENT).to(tl.float32)
        x = place % width
        y = place // width
        inner = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
        for channel in tl.static_range(CHANNELS):
            plane_ptr = images_ptr + channel * pixels
            centre = read(plane_ptr + place, mask)
            value = blend(smoothed(plane_ptr, place, centre, inner, width), centre, factor)
            put(out_ptr, levels_ptr, channel, pixels, place, value, mask, LEVELS)
    elif path == CUTOUT:
        x = place % width
        y = place // width
        cut = (x >= tl.load(codes_ptr + 1)) & (x < tl.load(codes_ptr + 3))
        cut = cut & (y >= tl.load(codes_ptr + 2)) & (y < tl.load(codes_ptr + 4))
        for channel in tl.static_range(CHANNELS):
            value = read(images_ptr + channel * pixels + place, mask)
            value = tl.where(cut, channel_of(patch, channel), value)
            put(out_ptr, levels_ptr, channel, pixels, place, value, mask, LEVELS)
    elif (path == NEAREST_FIXED) | (path == NEAREST_FLOAT):
        x = place % width
        y = place // width
        if path == NEAREST_FIXED:
            column, row = fixed_positions(codes_ptr, x, y)
        else:
            column, row = far_positions(numbers_ptr, x, y)
        take(
            images_ptr,
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
            CHANNELS,
            LEVELS,
        )
    elif path == BILINEAR:
        smooth(
            images_ptr,
            out_ptr,
            levels_ptr,
            numbers_ptr,
            pixels,
            first,
            height,
            width,
            fill,
            False,
            CHANNELS,
            BLOCK,
            PART,
            LEVELS,
        )
    elif path == BICUBIC:
        smooth(
            images_ptr,
            out_ptr,
            levels_ptr,
            numbers_ptr,
            pixels,
            first,
            height,
            width,
            fill,
            True,
            CHANNELS,
            BLOCK,
            PART,
            LEVELS,
        )
    else:
        for channel in tl.static_range(CHANNELS):
            value = read(images_ptr + channel * pixels + place, mask)
            put(out_ptr, levels_ptr, channel, pixels, place, value, mask, LEVELS)
