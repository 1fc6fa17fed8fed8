"""Device functions that several kernels call, beside those of the core (:mod:`effkit.triton`)."""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import device_functions

_core = device_functions()
add, greater, operand = _core.add, _core.greater, _core.operand


@triton.jit
def segments(start_ptr, length_ptr, length_stride, row, new_tokens, num_initial, num_local):
    """Cut one row (section 3.2): first real token, end of all tokens, and the borders of the middle, all int64.

    Returns:
        ``start, length, middle, local``: the initial tokens are ``[start, middle)``, the middle ``[middle, local)``,
        local and current ones ``[local, length)``. Padding inside the chunk counts as no token before it.
    """
    start = tl.load(start_ptr + row).to(tl.int64)
    length = tl.load(length_ptr + row * length_stride).to(tl.int64)
    before = tl.maximum(length - new_tokens - start, 0)
    local = start + before - tl.minimum(before, num_local)
    middle = start + tl.minimum(local - start, num_initial)
    return start, length, middle, local


@triton.jit
def order_key(x):
    """Map float32 to uint32 so that a greater number gets a smaller key; both zeros get the same."""
    bits = tl.where(x == 0.0, 0.0, x).to(tl.uint32, bitcast=True)
    return tl.where((bits >> 31) != 0, bits, bits ^ 0x7FFFFFFF)


@triton.jit
def rising_key(x):
    """Map a float to an unsigned number that rises with it, both zeros to the same; nothing but one NaN becomes 0."""
    if x.dtype == tl.float64:
        bits = tl.where(x == 0.0, 0.0, x).to(tl.uint64, bitcast=True)
        return tl.where((bits >> 63) != 0, ~bits, bits | (tl.cast(1, tl.uint64) << 63))
    else:
        bits = tl.where(x == 0.0, 0.0, x).to(tl.uint32, bitcast=True)
        return tl.where((bits >> 31) != 0, ~bits, bits | (tl.cast(1, tl.uint32) << 31))


@triton.jit
def from_rising_key(key):
    """The float that :func:`rising_key` made ``key`` of; minus infinity for 0."""
    if key.dtype == tl.uint64:
        bits = tl.where((key >> 63) != 0, key & ~(tl.cast(1, tl.uint64) << 63), ~key)
        x = bits.to(tl.float64, bitcast=True)
    else:
        bits = tl.where((key >> 31) != 0, key & ~(tl.cast(1, tl.uint32) << 31), ~key)
        x = bits.to(tl.float32, bitcast=True)
    return tl.where(key == 0, -float("inf"), x)


@triton.jit
def columns(ptr, rows_offset, mask, first, COUNT: tl.constexpr, PADDED: tl.constexpr):
    """Dimensions ``[first, first + COUNT)`` of the rows in ``mask`` (of all, without one), padded with 0."""
    d = tl.arange(0, PADDED)
    place = ptr + rows_offset[:, None] + (first + d)[None, :]
    inside = (d < COUNT)[None, :]
    if mask is None:
        if COUNT == PADDED:
            return tl.load(place)
        else:
            return tl.load(place, mask=inside, other=0.0)
    elif COUNT == PADDED:
        return tl.load(place, mask=mask[:, None], other=0.0)
    else:
        return tl.load(place, mask=mask[:, None] & inside, other=0.0)


@triton.jit
def attend_tile(scores, value, acc, top, total, DOT: tl.constexpr, PRECISION: tl.constexpr, EMULATE_BF16: tl.constexpr):
    """One step of the online softmax: scores ``(rows, keys)`` in powers of two, values ``(keys, dim)``.

    A row that has seen no key yet has ``top`` minus infinity; subtracting 0 there instead keeps NaN away.
    """
    new_top = tl.maximum(top, tl.reduce(scores, 1, greater))
    safe = tl.where(new_top == -float("inf"), 0.0, new_top)
    weights = tl.exp2(scores - safe[:, None])
    shrink = tl.exp2(top - safe)
    total = total * shrink + tl.reduce(weights, 1, add)
    acc = tl.dot(
        operand(weights, DOT, EMULATE_BF16),
        value,
        acc * shrink[:, None],
        out_dtype=acc.dtype,
        input_precision=PRECISION,
    )
    return acc, new_top, total


@triton.jit
def put_columns(ptr, rows_offset, value, mask, COUNT: tl.constexpr, PADDED: tl.constexpr):
    """Store what :func:`columns` loads: ``COUNT`` of ``PADDED`` columns of the rows in ``mask``."""
    d = tl.arange(0, PADDED)
    tl.store(ptr + rows_offset[:, None] + d[None, :], value, mask=mask[:, None] & (d < COUNT)[None, :])


@triton.jit
def digit_scale(largest):
    """The scale of eight-bit numbers, of which the largest is 127."""
    return tl.where(largest > 0, largest / 127, 1.0)


@triton.jit
def to_digits(x):
    """To the nearest whole number, halves to the even one: what adding and taking away 1.5 * 2**23 does."""
    return ((x + 12582912.0) - 12582912.0).to(tl.int8)
