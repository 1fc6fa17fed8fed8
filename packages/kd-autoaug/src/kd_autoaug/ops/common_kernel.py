"""What the kernels share: the ways in which a picture is changed, and the arithmetic of bytes."""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

# How the apply kernel changes one picture: found by the prepare kernel, read from the first of the picture's codes.
COPY = tl.constexpr(0)
LOOK_UP = tl.constexpr(1)
COLOR = tl.constexpr(2)
STENCIL = tl.constexpr(3)
CUTOUT = tl.constexpr(4)
NEAREST_FIXED = tl.constexpr(5)
NEAREST_FLOAT = tl.constexpr(6)
BILINEAR = tl.constexpr(7)
BICUBIC = tl.constexpr(8)

# Row lengths of what is known of each picture: int32 codes (path, then A..F of the map in fixed point or the box of
# cutout) and float64 numbers (a..f of the map, then the operator's argument).
CODES = tl.constexpr(8)
NUMBERS = tl.constexpr(8)
ARGUMENT = tl.constexpr(6)


@triton.jit
def read(ptr, mask):
    """Bytes as int32; 0 where masked."""
    return tl.load(ptr, mask=mask, other=0).to(tl.int32)


@triton.jit
def to_byte(value):
    """Cut to 0..255 and truncate, as int32."""
    return tl.minimum(tl.maximum(value, 0.0), 255.0).to(tl.int32)


@triton.jit
def blend(base, value, factor):
    """Pillow's base + factor * (value - base): float32, each operation rounded, cut and truncated: int32 in and out."""
    base = base.to(tl.float32)
    return to_byte((value.to(tl.float32) - base) * factor + base)


@triton.jit
def grey(picture_ptr, pixels, place, mask, CHANNELS: tl.constexpr):
    """Luma of some pixels as Pillow's mode L; a grey picture is its own."""
    first = read(picture_ptr + place, mask)
    if CHANNELS == 1:
        return first
    else:  # triton compiles both branches if the first one only returns
        green = read(picture_ptr + pixels + place, mask)
        blue = read(picture_ptr + 2 * pixels + place, mask)
        return (first * 19595 + green * 38470 + blue * 7471 + 32768) >> 16
