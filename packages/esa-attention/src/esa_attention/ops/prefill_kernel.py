"""Triton kernels of the chunk score (Eq. 4): two passes of matrix products that never store queries x tokens.

``row_max_kernel`` finds each query's best middle token, ``chunk_scores_kernel`` computes the products again, subtracts
that and takes the best query for each token: the second product costs less than writing and reading the matrix. Both
keep the elementwise maximum of the tiles they see and reduce it once at the end, which saves a reduction per product.

The best token of a query must get exactly 0: rounding noise in its place would be spread to its neighbours by the max
filter, and put them before the best tokens of other queries. So both passes form each product from the same operands,
in tiles of the same shape at the same places, and neither may fuse what follows into multiply-adds.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import device_functions, kernels

_core, _common = device_functions(), kernels(__package__, "common_kernel")
greater, loop_bound, operand = _core.greater, _core.loop_bound, _core.operand
from_rising_key, order_key, rising_key = _common.from_rising_key, _common.order_key, _common.rising_key
segments = _common.segments


@triton.jit
def _rows(ptr, base, first, last, stride, part, RANK: tl.constexpr, PART: tl.constexpr, SIZE: tl.constexpr):
    """Numbers ``[part, part + PART)`` of the rows ``[base, base + SIZE)``; 0 outside ``[first, last)`` or ``RANK``."""
    row = base + tl.arange(0, SIZE)
    r = part + tl.arange(0, PART)
    mask = ((row >= first) & (row < last))[:, None] & (r < RANK)[None, :]
    return tl.load(ptr + row.to(tl.int64)[:, None] * stride + r[None, :], mask=mask, other=0)


@triton.jit(do_not_specialize=["queries", "new_tokens", "num_initial", "num_local", "span"])
def row_max_kernel(
    index_ptr,  # (B, capacity, RANK)
    scale_ptr,  # (B, capacity) or None
    query_ptr,  # (B, queries, RANK)
    start_ptr,
    length_ptr,
    best_ptr,  # (B, queries) rising keys, 0 at first
    index_row_stride,
    index_stride,
    scale_row_stride,
    query_row_stride,
    query_stride,
    length_stride,
    best_stride,
    queries,
    new_tokens,
    num_initial,
    num_local,
    span,  # tokens of a split
    RANK: tl.constexpr,
    PART: tl.constexpr,
    QUERIES: tl.constexpr,  # of a tile
    TOKENS: tl.constexpr,  # of a tile
    DOT: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
    EMULATE_BF16: tl.constexpr,
):
    """Best score of each query among the middle tokens; splits meet in an atomic maximum, whose order is no matter."""
    split = tl.program_id(0)
    row = tl.program_id(2).to(tl.int64)
    _, _, low, high = segments(start_ptr, length_ptr, length_stride, row, new_tokens, num_initial, num_local)
    first = tl.maximum(low // TOKENS * TOKENS, split.to(tl.int64) * span).to(tl.int32)
    last = tl.minimum(high, (split.to(tl.int64) + 1) * span).to(tl.int32)
    index_ptr += row * index_row_stride
    query_ptr += row * query_row_stride
    first_query = tl.program_id(1) * QUERIES

    best = tl.full((TOKENS, QUERIES), -float("inf"), ACC)
    if RANK <= PART:  # the queries stay where they are
        q_all = _rows(query_ptr, first_query, 0, queries, query_stride, 0, RANK, PART, QUERIES)
        q_all = tl.trans(operand(q_all, DOT, EMULATE_BF16))
    for base in range(loop_bound(first), loop_bound(last), TOKENS):
        if RANK <= PART:
            k = operand(_rows(index_ptr, base, low, high, index_stride, 0, RANK, PART, TOKENS), DOT, EMULATE_BF16)
            score = tl.dot(k, q_all, out_dtype=ACC, input_precision=PRECISION)
        else:
            score = tl.full((TOKENS, QUERIES), 0.0, ACC)
            for part in range(0, RANK, PART):
                k = _rows(index_ptr, base, low, high, index_stride, part, RANK, PART, TOKENS)
                q = _rows(query_ptr, first_query, 0, queries, query_stride, part, RANK, PART, QUERIES)
                q = tl.trans(operand(q, DOT, EMULATE_BF16))
                score = tl.dot(operand(k, DOT, EMULATE_BF16), q, score, out_dtype=ACC, input_precision=PRECISION)
        token = base + tl.arange(0, TOKENS)
        middle = (token >= low) & (token < high)
        if scale_ptr is not None:
            scale = tl.load(scale_ptr + row * scale_row_stride + token, mask=middle, other=0.0).to(ACC)
            score *= scale[:, None]
        best = tl.maximum(best, tl.where(middle[:, None], score, -float("inf")))
    best = tl.reduce(best, 0, greater)
    query = first_query + tl.arange(0, QUERIES)
    place = best_ptr + row * best_stride + query
    if first < last:
        tl.atomic_max(place, rising_key(best), mask=query < queries, sem="relaxed")


@triton.jit(do_not_specialize=["capacity", "queries", "block", "new_tokens", "num_initial", "num_local"])
def chunk_scores_kernel(
    index_ptr,
    scale_ptr,
    query_ptr,
    start_ptr,
    length_ptr,
    best_ptr,  # (B, queries): rising key of each query's best score in the middle
    own_ptr,  # (B, blocks, capacity)
    index_row_stride,
    index_stride,
    scale_row_stride,
    query_row_stride,
    query_stride,
    length_stride,
    best_stride,
    own_row_stride,
    own_block_stride,
    capacity,
    queries,
    block,  # queries that choose together
    new_tokens,
    num_initial,
    num_local,
    RANK: tl.constexpr,
    PART: tl.constexpr,
    QUERIES: tl.constexpr,
    TOKENS: tl.constexpr,
    DOT: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
    EMULATE_BF16: tl.constexpr,
):
    """Eq. 4 for a tile of tokens and one block of queries."""
    row = tl.program_id(2).to(tl.int64)
    _, _, low, high = segments(start_ptr, length_ptr, length_stride, row, new_tokens, num_initial, num_local)
    index_ptr += row * index_row_stride
    query_ptr += row * query_row_stride
    first = tl.program_id(0) * TOKENS
    token = first + tl.arange(0, TOKENS)
    middle = (token >= low) & (token < high)

    result = tl.full((TOKENS,), -float("inf"), ACC)
    if (first + TOKENS > low) & (first < high):
        # All of them are real: a chunk with padding has nothing before it, hence no middle.
        first_query = tl.program_id(1) * block
        last_query = tl.minimum(first_query + block, queries)
        best = tl.full((TOKENS, QUERIES), -float("inf"), ACC)
        if RANK <= PART:
            k_all = operand(_rows(index_ptr, first, low, high, index_stride, 0, RANK, PART, TOKENS), DOT, EMULATE_BF16)
        if scale_ptr is not None:
            scale = tl.load(scale_ptr + row * scale_row_stride + token, mask=middle, other=0.0).to(ACC)
        for query_base in range(loop_bound(first_query), loop_bound(last_query), QUERIES):
            if RANK <= PART:
                q = _rows(query_ptr, query_base, first_query, last_query, query_stride, 0, RANK, PART, QUERIES)
                q = tl.trans(operand(q, DOT, EMULATE_BF16))
                score = tl.dot(k_all, q, out_dtype=ACC, input_precision=PRECISION)
            else:
                score = tl.full((TOKENS, QUERIES), 0.0, ACC)
                for part in range(0, RANK, PART):
                    k = _rows(index_ptr, first, low, high, index_stride, part, RANK, PART, TOKENS)
                    q = _rows(query_ptr, query_base, first_query, last_query, query_stride, part, RANK, PART, QUERIES)
                    q = tl.trans(operand(q, DOT, EMULATE_BF16))
                    score = tl.dot(operand(k, DOT, EMULATE_BF16), q, score, out_dtype=ACC, input_precision=PRECISION)
            query = query_base + tl.arange(0, QUERIES)
            # Infinity where there is no query makes the difference minus infinity, the neutral value.
            top = from_rising_key(tl.load(best_ptr + row * best_stride + query, mask=query < last_query, other=0))
            top = tl.where(query < last_query, top, float("inf"))
            if scale_ptr is not None:
                score *= scale[:, None]
            best = tl.maximum(best, score - top[None, :])
        result = tl.where(middle, tl.reduce(best, 1, greater), -float("inf"))
    place = own_ptr + row * own_row_stride + tl.program_id(1).to(tl.int64) * own_block_stride + token
    tl.store(place, result, mask=token < capacity)


@triton.jit(do_not_specialize=["capacity", "new_tokens", "num_initial", "num_local", "num_selected"])
def dilate_kernel(
    own_ptr,  # (B, blocks, capacity)
    dilated_ptr,  # (B, blocks, capacity)
    histogram_ptr,  # (B blocks, ...) int32, zeroed, or None
    start_ptr,
    length_ptr,
    own_row_stride,
    own_block_stride,
    dilated_row_stride,
    dilated_block_stride,
    histogram_stride,
    length_stride,
    capacity,
    new_tokens,
    num_initial,
    num_local,
    num_selected,  # rows with no more middle tokens are not counted
    EPS: tl.constexpr,
    TOKENS: tl.constexpr,
    BITS: tl.constexpr,  # of the first digit
):
    """Max filter over ``2 EPS + 1`` tokens, clipped to the middle (Eq. 8); and how often each first digit occurs."""
    row = tl.program_id(2).to(tl.int64)
    number = tl.program_id(1).to(tl.int64)
    _, _, low, high = segments(start_ptr, length_ptr, length_stride, row, new_tokens, num_initial, num_local)
    own_ptr += row * own_row_stride + number * own_block_stride
    dilated_ptr += row * dilated_row_stride + number * dilated_block_stride
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    middle = (token >= low) & (token < high)
    best = tl.load(own_ptr + token, mask=middle, other=-float("inf"))
    for distance in tl.static_range(1, EPS + 1):
        before = tl.load(own_ptr + token - distance, mask=middle & (token - distance >= low), other=-float("inf"))
        after = tl.load(own_ptr + token + distance, mask=middle & (token + distance < high), other=-float("inf"))
        best = tl.maximum(best, tl.maximum(before, after))
    tl.store(dilated_ptr + token, best, mask=token < capacity)

    if histogram_ptr is not None:  # noqa: SIM102  # a constant: the rest is not compiled without
        if high - low > num_selected:
            counts = tl.histogram((order_key(best) >> (32 - BITS)).to(tl.int32), 1 << BITS, mask=middle)
            scores = row * tl.num_programs(1) + number
            bins = histogram_ptr + scores * histogram_stride + tl.arange(0, 1 << BITS)
            tl.atomic_add(bins, counts, mask=counts > 0, sem="relaxed")
