"""Device functions that several kernels call; see :mod:`esa_attention.ops._triton_common` for how files are loaded.

Reductions and scans name their combine function, one of those below, because ``tl.sum`` and the like are themselves
decorated when triton is first imported, which may be in the other mode. The interpreter knows triton's own combine
functions by identity, and is slow with others.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from esa_attention.ops._triton_common import interpreted

if interpreted():
    add = tl.standard._sum_combine
    greater = tl.standard._elementwise_max
    lesser = tl.standard._elementwise_min

    def loop_bound(value):
        """Bound of a ``range``; triton 3.6 would hand a NumPy array to ``int()``, which NumPy deprecates."""
        return int(value.handle.data.item()) if isinstance(value, tl.tensor) else value

else:

    @triton.jit
    def add(a, b):
        """Sum, for reductions and scans."""
        return a + b

    @triton.jit
    def greater(a, b):
        """Maximum, for reductions."""
        return tl.maximum(a, b)

    @triton.jit
    def lesser(a, b):
        """Minimum, for reductions."""
        return tl.minimum(a, b)

    @triton.jit
    def loop_bound(value):
        """Bound of a ``range``."""
        return value


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
def operand(x, DOT: tl.constexpr, EMULATE_BF16: tl.constexpr):
    """Cast to the type of the dots; the interpreter has no bfloat16, so round to its 8 bits there and stay in fp32."""
    if EMULATE_BF16:
        bits = x.to(tl.float32).to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        return bits.to(tl.float32, bitcast=True)
    return x.to(DOT)


@triton.jit
def order_key(x):
    """Map float32 to uint32 so that a greater number gets a smaller key; both zeros get the same."""
    bits = tl.where(x == 0.0, 0.0, x).to(tl.uint32, bitcast=True)
    return tl.where((bits >> 31) != 0, bits, bits ^ 0x7FFFFFFF)


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
