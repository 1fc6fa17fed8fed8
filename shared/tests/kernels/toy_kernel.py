"""Kernels small enough to be checked by eye; executed once for each mode, like those of the packages."""

import triton
import triton.language as tl

from effkit.triton import device_functions

_core = device_functions()
add, greater, lesser = _core.add, _core.greater, _core.lesser
loop_bound, operand = _core.loop_bound, _core.operand


@triton.jit
def scale_kernel(x_ptr, out_ptr, count, factor, BLOCK: tl.constexpr):
    """``out = factor x + 1``."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + i, tl.load(x_ptr + i, mask=i < count, other=0.0) * factor + 1.0, mask=i < count)


@triton.jit
def rows_kernel(x_ptr, length_ptr, sum_ptr, most_ptr, least_ptr, width, BLOCK: tl.constexpr):
    """Sum, maximum and minimum of the first ``length`` numbers of a row; the length is read by the kernel."""
    row = tl.program_id(0)
    length = tl.load(length_ptr + row)
    total = tl.full((BLOCK,), 0.0, tl.float32)
    most = tl.full((BLOCK,), -float("inf"), tl.float32)
    least = tl.full((BLOCK,), float("inf"), tl.float32)
    for first in range(0, loop_bound(length), BLOCK):
        i = first + tl.arange(0, BLOCK)
        inside = i < length
        x = tl.load(x_ptr + row * width + i, mask=inside, other=0.0).to(tl.float32)
        total += tl.where(inside, x, 0.0)
        most = tl.maximum(most, tl.where(inside, x, -float("inf")))
        least = tl.minimum(least, tl.where(inside, x, float("inf")))
    tl.store(sum_ptr + row, tl.reduce(total, 0, add))
    tl.store(most_ptr + row, tl.reduce(most, 0, greater))
    tl.store(least_ptr + row, tl.reduce(least, 0, lesser))


@triton.jit
def product_kernel(
    a_ptr,
    b_ptr,
    out_ptr,
    N: tl.constexpr,
    DOT: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
    EMULATE_BF16: tl.constexpr,
):
    """``out = a @ b`` of square matrices, operands rounded to ``DOT``."""
    i = tl.arange(0, N)
    place = i[:, None] * N + i[None, :]
    a = operand(tl.load(a_ptr + place), DOT, EMULATE_BF16)
    b = operand(tl.load(b_ptr + place), DOT, EMULATE_BF16)
    tl.store(out_ptr + place, tl.dot(a, b, tl.full((N, N), 0.0, ACC), out_dtype=ACC, input_precision=PRECISION))
