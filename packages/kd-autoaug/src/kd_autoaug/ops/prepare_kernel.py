"""What has to be known of each picture before its pixels are written: its path, its map or box, its lookup tables.

One program per picture and channel. Only equalize, autocontrast and contrast read pixels; the others are done at once.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import device_functions, kernels
from kd_autoaug.ops import matrix, operators
from kd_autoaug.ops.operators import Op

_core, _common = device_functions(), kernels(__package__, "common_kernel")
COPY, LOOK_UP, COLOR, STENCIL = _common.COPY, _common.LOOK_UP, _common.COLOR, _common.STENCIL
CUTOUT, NEAREST_FIXED, NEAREST_FLOAT = _common.CUTOUT, _common.NEAREST_FIXED, _common.NEAREST_FLOAT
BILINEAR, BICUBIC = _common.BILINEAR, _common.BICUBIC
CODES, NUMBERS, ARGUMENT = _common.CODES, _common.NUMBERS, _common.ARGUMENT
add, lesser, greater, loop_bound = _core.add, _core.lesser, _core.greater, _core.loop_bound
blend, grey, read, to_byte = _common.blend, _common.grey, _common.read, _common.to_byte
rotation = kernels(__package__, "rotation_kernel").rotation

SHEAR_X, SHEAR_Y = tl.constexpr(int(Op.SHEAR_X)), tl.constexpr(int(Op.SHEAR_Y))
TRANSLATE_X, TRANSLATE_Y = tl.constexpr(int(Op.TRANSLATE_X)), tl.constexpr(int(Op.TRANSLATE_Y))
ROTATE, BRIGHTNESS, CONTRAST = (tl.constexpr(int(op)) for op in (Op.ROTATE, Op.BRIGHTNESS, Op.CONTRAST))
POSTERIZE, SOLARIZE, SOLARIZE_ADD = (tl.constexpr(int(op)) for op in (Op.POSTERIZE, Op.SOLARIZE, Op.SOLARIZE_ADD))
AUTOCONTRAST, EQUALIZE, INVERT = (tl.constexpr(int(op)) for op in (Op.AUTOCONTRAST, Op.EQUALIZE, Op.INVERT))
OP_COLOR, SHARPNESS, OP_CUTOUT = (tl.constexpr(int(op)) for op in (Op.COLOR, Op.SHARPNESS, Op.CUTOUT))
LONGEST = tl.constexpr(matrix.LONGEST)
HOW_BILINEAR, HOW_BICUBIC = tl.constexpr(operators.BILINEAR), tl.constexpr(operators.BICUBIC)


@triton.jit
def within_fixed_point(a, b, c, x, y):
    """Whether one corner maps to less than 32,768 pixels away along one axis."""
    return tl.abs(a * x + b * y + c) < 32768.0


@triton.jit
def fixed(value):
    """A number in 16.16 fixed point, cut to what int32 holds."""
    most = tl.full((), 2147483647.0, tl.float64)  # as a bare number, `minimum` would take it as float32: one more
    return tl.minimum(tl.maximum(tl.floor(value * 65536.0 + 0.5), -2147483648.0), most).to(tl.int32)


@triton.jit
def fixed_offset(first, second, last, own, apart):
    """The offset of a fixed-point map; a whole pixel where the axes do not depend on each other."""
    whole = tl.minimum(tl.maximum(tl.floor(last + own * 0.5), -32000.0), 32000.0) * 65536.0
    return tl.where(apart, whole.to(tl.int32), fixed(last + first * 0.5 + second * 0.5))


@triton.jit
def store_map(codes_ptr, numbers_ptr, a, b, c, d, e, f, how, height, width):
    """Write an affine map, exact and in fixed point, and the path by which it is sampled. See ``ops.matrix``."""
    x = width.to(tl.float64)
    y = height.to(tl.float64)
    zero = x * 0.0
    fits = within_fixed_point(a, b, c, zero, zero) & within_fixed_point(d, e, f, zero, zero)
    fits = fits & within_fixed_point(a, b, c, x, y) & within_fixed_point(d, e, f, x, y)
    fits = fits & within_fixed_point(a, b, c, zero, y) & within_fixed_point(d, e, f, zero, y)
    fits = fits & within_fixed_point(a, b, c, x, zero) & within_fixed_point(d, e, f, x, zero)
    apart = (b == 0.0) & (d == 0.0)
    short = (height <= LONGEST) & (width <= LONGEST)
    path = tl.where(fits | (apart & short), NEAREST_FIXED, NEAREST_FLOAT)
    path = tl.where(how == HOW_BILINEAR, BILINEAR, tl.where(how == HOW_BICUBIC, BICUBIC, path))
    tl.store(codes_ptr, path)
    tl.store(codes_ptr + 1, fixed(a))
    tl.store(codes_ptr + 2, fixed(b))
    tl.store(codes_ptr + 3, fixed_offset(a, b, c, a, apart))
    tl.store(codes_ptr + 4, fixed(d))
    tl.store(codes_ptr + 5, fixed(e))
    tl.store(codes_ptr + 6, fixed_offset(d, e, f, e, apart))
    tl.store(numbers_ptr, a)
    tl.store(numbers_ptr + 1, b)
    tl.store(numbers_ptr + 2, c)
    tl.store(numbers_ptr + 3, d)
    tl.store(numbers_ptr + 4, e)
    tl.store(numbers_ptr + 5, f)


@triton.jit
def store_codes(codes_ptr, numbers_ptr, op, arg, how, box_ptr, box_stride, height, width, CHANNELS: tl.constexpr):
    """Write what the apply kernel reads of a picture, but for its tables."""
    tl.store(numbers_ptr + ARGUMENT, arg)
    one = arg * 0.0 + 1.0
    zero = one - 1.0
    if op == ROTATE:
        a, b, c, d, e, f = rotation(arg, height, width)
        store_map(codes_ptr, numbers_ptr, a, b, c, d, e, f, how, height, width)
    elif (op >= SHEAR_X) & (op <= TRANSLATE_Y):
        b = tl.where(op == SHEAR_X, arg, zero)
        c = tl.where(op == TRANSLATE_X, arg, zero)
        d = tl.where(op == SHEAR_Y, arg, zero)
        f = tl.where(op == TRANSLATE_Y, arg, zero)
        store_map(codes_ptr, numbers_ptr, one, b, c, d, one, f, how, height, width)
    elif op == OP_CUTOUT:
        tl.store(codes_ptr, CUTOUT)
        for side in tl.static_range(4):
            edge = tl.maximum(tl.load(box_ptr + side * box_stride), 0)  # left, top, right, bottom
            if side % 2 == 0:
                tl.store(codes_ptr + 1 + side, tl.minimum(edge, width).to(tl.int32))
            else:
                tl.store(codes_ptr + 1 + side, tl.minimum(edge, height).to(tl.int32))
    else:
        looked_up = (op == BRIGHTNESS) | (op == CONTRAST) | ((op >= POSTERIZE) & (op <= INVERT))
        path = tl.where(looked_up, LOOK_UP, COPY)
        path = tl.where((op == OP_COLOR) & (CHANNELS == 3), COLOR, path)
        path = tl.where((op == SHARPNESS) & (height >= 3) & (width >= 3), STENCIL, path)
        tl.store(codes_ptr, path)


@triton.jit
def simple_table(op, arg):
    """The table of an operator that has to know nothing of the picture."""
    values = tl.arange(0, 256)
    if op == BRIGHTNESS:
        table = to_byte(values.to(tl.float32) * arg.to(tl.float32))
    elif op == POSTERIZE:
        bits = tl.minimum(tl.maximum(arg, 0.0), 8.0).to(tl.int32)
        table = values & (256 - (256 >> bits))
    elif op == SOLARIZE:
        table = tl.where(values.to(tl.float64) < arg, values, 255 - values)
    elif op == SOLARIZE_ADD:
        addend = tl.minimum(tl.maximum(arg, -512.0), 512.0).to(tl.int32)
        table = tl.where(values < 128, tl.minimum(tl.maximum(values + addend, 0), 255), values)
    else:
        table = 255 - values
    return table


@triton.jit
def mean_grey(picture_ptr, pixels, count, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Mean of the luma, rounded half up: int32."""
    total = tl.full([BLOCK], 0, tl.int32)
    for start in range(0, loop_bound(pixels), BLOCK):
        place = start + tl.arange(0, BLOCK)
        mask = place < pixels
        total += tl.where(mask, grey(picture_ptr, pixels, place, mask, CHANNELS), 0)
    whole = tl.reduce(total.to(tl.int64), 0, add).to(tl.float64)
    return tl.floor(whole / count.to(tl.float64) + 0.5).to(tl.int32)


@triton.jit
def autocontrast_table(plane_ptr, pixels, BLOCK: tl.constexpr):
    """Stretch the range of a plane to 0..255; float64, true division."""
    low = tl.full([BLOCK], 255, tl.int32)
    high = tl.full([BLOCK], 0, tl.int32)
    for start in range(0, loop_bound(pixels), BLOCK):
        place = start + tl.arange(0, BLOCK)
        mask = place < pixels
        value = read(plane_ptr + place, mask)
        low = tl.minimum(low, tl.where(mask, value, 255))
        high = tl.maximum(high, value)
    least = tl.reduce(low, 0, lesser)
    spread = tl.reduce(high, 0, greater) - least
    scale = 255.0 / tl.maximum(spread, 1).to(tl.float64)
    offset = -least.to(tl.float64) * scale
    values = tl.arange(0, 256)
    return tl.where(spread <= 0, values, to_byte(values.to(tl.float64) * scale + offset))


@triton.jit
def equalize_table(plane_ptr, pixels, BLOCK: tl.constexpr):
    """Spread the histogram of a plane evenly."""
    counts = tl.full([256], 0, tl.int32)
    for start in range(0, loop_bound(pixels), BLOCK):
        place = start + tl.arange(0, BLOCK)
        mask = place < pixels
        counts += tl.histogram(read(plane_ptr + place, mask), 256, mask=mask)
    values = tl.arange(0, 256)
    last = tl.reduce(tl.where(counts > 0, values, 0), 0, greater)
    step = (pixels - tl.reduce(tl.where(values == last, counts, 0), 0, add)) // 255
    before = tl.associative_scan(counts, 0, add) - counts
    spread = tl.minimum((step // 2 + before) // tl.maximum(step, 1), 255)
    return tl.where(step == 0, values, spread)


@triton.jit(do_not_specialize=["height", "width"])
def prepare_kernel(
    images_ptr,
    tables_ptr,
    codes_ptr,
    numbers_ptr,
    op_ptr,
    arg_ptr,
    how_ptr,
    box_ptr,
    op_stride,
    arg_stride,
    how_stride,
    box_row_stride,
    box_stride,
    pixels,
    height,
    width,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Codes and numbers of a picture, and the table of one of its channels."""
    picture = (tl.program_id(0) // CHANNELS).to(tl.int64)
    channel = tl.program_id(0) % CHANNELS
    op = tl.load(op_ptr + picture * op_stride).to(tl.int32)
    arg = tl.load(arg_ptr + picture * arg_stride)
    images_ptr += picture * CHANNELS * pixels
    tables_ptr += picture * (CHANNELS * 256) + tl.arange(0, 256)
    if channel == 0:
        how = tl.load(how_ptr + picture * how_stride).to(tl.int32)
        codes_ptr += picture * CODES
        numbers_ptr += picture * NUMBERS
        box_ptr += picture * box_row_stride
        store_codes(codes_ptr, numbers_ptr, op, arg, how, box_ptr, box_stride, height, width, CHANNELS)
    if op == EQUALIZE:
        table = equalize_table(images_ptr + channel * pixels, pixels, BLOCK)
        tl.store(tables_ptr + channel * 256, table.to(tl.uint8))
    elif op == AUTOCONTRAST:
        table = autocontrast_table(images_ptr + channel * pixels, pixels, BLOCK)
        tl.store(tables_ptr + channel * 256, table.to(tl.uint8))
    elif op == CONTRAST:
        if channel == 0:  # one mean for the whole picture: one program reads it, and writes all tables
            mean = mean_grey(images_ptr, pixels, height * width, CHANNELS, BLOCK)
            table = blend(mean, tl.arange(0, 256), arg.to(tl.float32)).to(tl.uint8)
            for each in tl.static_range(CHANNELS):
                tl.store(tables_ptr + each * 256, table)
    elif (op == BRIGHTNESS) | ((op >= POSTERIZE) & (op <= INVERT)):
        tl.store(tables_ptr + channel * 256, simple_table(op, arg).to(tl.uint8))
