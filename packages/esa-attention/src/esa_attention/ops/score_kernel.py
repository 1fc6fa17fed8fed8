"""Triton kernel of a decoding step's scores: dot products, max filter and first histogram in one pass over the index.

The step is bound by reading the index, so everything else happens while a tile is in registers. A program reads
``BLOCK`` tokens and writes ``BLOCK - 2 EPS``: the halo on both sides is read twice (from the L2 cache the second time),
which is what makes the max filter local. The filter doubles its width with each step, so a window of 7 takes 3 shifts.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import device_functions, kernels

_core, _common = device_functions(), kernels(__package__, "common_kernel")
add = _core.add
order_key, segments = _common.order_key, _common.segments


@triton.jit(do_not_specialize=["capacity", "num_initial", "num_local", "num_selected"])
def decode_scores_kernel(
    index_ptr,  # (B, capacity, RANK)
    scale_ptr,  # (B, capacity) or None
    query_ptr,  # (B, RANK)
    start_ptr,  # (B,)
    length_ptr,  # (1,) or (B,)
    own_ptr,  # (B, capacity)
    dilated_ptr,  # (B, capacity)
    histogram_ptr,  # (B, 1 << BITS) counts of first digits, added to; or None
    index_row_stride,
    index_stride,
    scale_row_stride,
    query_row_stride,
    length_stride,
    own_row_stride,
    dilated_row_stride,
    histogram_row_stride,
    capacity,
    num_initial,
    num_local,
    num_selected,  # rows with no more middle tokens are left alone
    RANK: tl.constexpr,
    PART: tl.constexpr,  # numbers of an index row at a time
    EPS: tl.constexpr,
    LEVELS: tl.constexpr,  # doublings that make a window of 2 EPS + 1
    BLOCK: tl.constexpr,
    BITS: tl.constexpr,  # of the first digit
    ACC: tl.constexpr,
):
    row = tl.program_id(1).to(tl.int64)
    _, _, low, high = segments(start_ptr, length_ptr, length_stride, row, 1, num_initial, num_local)
    if high - low <= num_selected:
        return
    offset = tl.arange(0, BLOCK)
    first = tl.program_id(0).to(tl.int64) * (BLOCK - 2 * EPS) - EPS
    token = first + offset
    own_ptr += row * own_row_stride + token
    writes_own = (offset >= EPS) & (offset < BLOCK - EPS) & (token < capacity)
    # The greatest of i .. i + 2 EPS is the dilated score of the token EPS further on.
    centre = token + EPS
    dilated_ptr += row * dilated_row_stride + centre
    writes_dilated = (offset < BLOCK - 2 * EPS) & (centre < capacity)
    score = tl.full((BLOCK,), -float("inf"), ACC)
    if (first + BLOCK <= low) | (first >= high):
        tl.store(own_ptr, score, mask=writes_own)
        tl.store(dilated_ptr, score, mask=writes_dilated)
        return

    middle = (token >= low) & (token < high)
    score = tl.full((BLOCK,), 0.0, ACC)
    for part in tl.range(0, RANK, PART, num_stages=1):
        r = part + tl.arange(0, PART)
        inside = r < RANK
        query = tl.load(query_ptr + row * query_row_stride + r, mask=inside, other=0.0).to(ACC)
        tile = index_ptr + row * index_row_stride + token[:, None] * index_stride + r[None, :]
        key = tl.load(tile, mask=middle[:, None] & inside[None, :], other=0).to(ACC)
        score += tl.reduce(key * query[None, :], 1, add)
    if scale_ptr is not None:
        score *= tl.load(scale_ptr + row * scale_row_stride + token, mask=middle, other=0.0).to(ACC)
    score = tl.where(middle, score, -float("inf"))
    tl.store(own_ptr, score, mask=writes_own)

    for level in tl.static_range(0, LEVELS):
        shifted = tl.minimum(offset + min(1 << level, 2 * EPS + 1 - (1 << level)), BLOCK - 1)
        score = tl.maximum(score, tl.gather(score, shifted, 0))
    middle = (centre >= low) & (centre < high)
    tl.store(dilated_ptr, tl.where(middle, score, -float("inf")), mask=writes_dilated)

    if histogram_ptr is not None:
        digit = (order_key(score) >> (32 - BITS)).to(tl.int32)
        counts = tl.histogram(digit, 1 << BITS, mask=writes_dilated & middle)
        bins = histogram_ptr + row * histogram_row_stride + tl.arange(0, 1 << BITS)
        tl.atomic_add(bins, counts, mask=counts > 0, sem="relaxed")
