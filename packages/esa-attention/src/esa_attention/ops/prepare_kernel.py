"""Triton kernel of all that a decoding step does before it scores: cache, index, queries, maps and empty histograms.

Each is a small operation of its own in torch, and a launch takes longer than any of them. Programs of one grid share
them out: one a key-value head appends and rotates, others multiply by the maps, which need the queries of all heads and
rotate them once more for themselves.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import device_functions, kernels

_core, _common = device_functions(), kernels(__package__, "common_kernel")
add, greater = _core.add, _core.greater
digit_scale, to_digits = _common.digit_scale, _common.to_digits
turn_queries = kernels(__package__, "query_kernel").turn_queries


@triton.jit
def _product(weight_ptr, weight_stride, r, rank, first, x, COUNT: tl.constexpr, PADDED: tl.constexpr):
    """Rows ``r`` of a matrix, some columns from ``first`` on, times a vector."""
    d = tl.arange(0, PADDED)
    mask = (r < rank)[:, None] & (d < COUNT)[None, :]
    tile = tl.load(weight_ptr + r[:, None] * weight_stride + (first + d)[None, :], mask=mask, other=0.0)
    return tl.reduce(tile.to(x.dtype) * x[None, :], 1, add)


@triton.jit
def _vector(ptr, first, COUNT: tl.constexpr, PADDED: tl.constexpr):
    d = tl.arange(0, PADDED)
    return tl.load(ptr + first + d, mask=d < COUNT, other=0.0)


@triton.jit
def _biased(acc, bias_ptr, r, rank):
    if bias_ptr is None:
        return acc
    else:
        return acc + tl.load(bias_ptr + r, mask=r < rank, other=0.0).to(acc.dtype)


@triton.jit(do_not_specialize=["num_local", "far_position", "scale_far", "rank", "zeroed", "capacity"])
def prepare_kernel(
    query_ptr,  # (B, H, 1, DIM)
    key_ptr,  # (B, K, 1, DIM)
    value_ptr,
    store_ptr,  # (B, capacity, 2, K, DIM)
    index_ptr,  # (B, capacity, RANK) or None
    scale_ptr,  # (B, capacity) or None
    query_map_ptr,  # (RANK, K DIM) or None
    key_map_ptr,
    query_bias_ptr,  # (RANK,) or None
    key_bias_ptr,
    far_ptr,  # (B, H, 1, DIM)
    local_ptr,
    folded_ptr,  # (B, 1, K DIM)
    mapped_ptr,  # (B, RANK)
    zeroed_ptr,  # (B, zeroed)
    start_ptr,
    length_ptr,
    cos_ptr,  # (positions, HALF)
    sin_ptr,
    query_row_stride,
    query_head_stride,
    key_row_stride,
    key_head_stride,
    value_row_stride,
    value_head_stride,
    store_row_stride,
    store_token_stride,
    store_value_stride,
    store_head_stride,
    index_row_stride,
    index_stride,
    scale_row_stride,
    map_stride,
    target_row_stride,
    target_head_stride,
    folded_row_stride,
    mapped_row_stride,
    zeroed_row_stride,
    table_stride,
    num_local,
    far_position,
    scale_far,
    rank,
    zeroed,
    capacity,
    GROUP: tl.constexpr,
    HEADS: tl.constexpr,  # key-value heads
    DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PADDED: tl.constexpr,
    REST_PADDED: tl.constexpr,
    RANKS: tl.constexpr,  # rows of a map that a program multiplies
    ZEROS: tl.constexpr,
    DOT: tl.constexpr,
    ACC: tl.constexpr,
    EMULATE_BF16: tl.constexpr,
):
    """The program's number says which part is its own; see the module."""
    part = tl.program_id(1)
    row = tl.program_id(2).to(tl.int64)
    length = tl.load(length_ptr).to(tl.int64)
    # Nobody on the host may know that the room is used up: nothing is written outside it, and the output is NaN.
    scale_far = tl.where(length <= capacity, scale_far, float("nan"))
    for base in range(part * ZEROS, zeroed, tl.num_programs(1) * ZEROS):
        bin = base + tl.arange(0, ZEROS)
        tl.store(zeroed_ptr + row * zeroed_row_stride + bin, tl.full((ZEROS,), 0, tl.int32), mask=bin < zeroed)
    if part < HEADS:
        d = tl.arange(0, DIM_PADDED)
        own = part.to(tl.int64)
        width = tl.where(length <= capacity, DIM, 0)
        place = store_ptr + row * store_row_stride + (length - 1) * store_token_stride + own * store_head_stride + d
        new_key = tl.load(key_ptr + row * key_row_stride + own * key_head_stride + d, mask=d < DIM)
        tl.store(place, new_key, mask=d < width)
        new_value = tl.load(value_ptr + row * value_row_stride + own * value_head_stride + d, mask=d < DIM)
        tl.store(place + store_value_stride, new_value, mask=d < width)
        turn_queries(
            0, part, row, query_ptr, far_ptr, local_ptr, folded_ptr, start_ptr, length_ptr, cos_ptr, sin_ptr,
            query_row_stride, query_head_stride, 0, target_row_stride, target_head_stride, 0,
            target_row_stride, target_head_stride, 0, folded_row_stride, 0, 0, table_stride,
            1, num_local, far_position, scale_far,
            GROUP, DIM, HALF, HALF_PADDED, REST_PADDED, 1, DOT, ACC, EMULATE_BF16,
        )  # fmt: skip
    elif query_map_ptr is not None:
        tiles = (rank + RANKS - 1) // RANKS
        number = part - HEADS
        r = (number % tiles) * RANKS + tl.arange(0, RANKS)
        acc = tl.full((RANKS,), 0.0, ACC)
        if number < tiles:
            table = far_position * table_stride
            cos = _vector(cos_ptr, table, HALF, HALF_PADDED).to(ACC)
            sin = _vector(sin_ptr, table, HALF, HALF_PADDED).to(ACC)
            for head in range(HEADS):
                y_1 = tl.full((HALF_PADDED,), 0.0, ACC)
                y_2 = tl.full((HALF_PADDED,), 0.0, ACC)
                for member in range(GROUP):
                    source = query_ptr + row * query_row_stride + (head * GROUP + member) * query_head_stride
                    x_1 = _vector(source, 0, HALF, HALF_PADDED).to(ACC)
                    x_2 = _vector(source, HALF, HALF, HALF_PADDED).to(ACC)
                    y_1 += (x_1 * cos - x_2 * sin) * scale_far
                    y_2 += (x_2 * cos + x_1 * sin) * scale_far
                acc += _product(query_map_ptr, map_stride, r, rank, head * DIM, y_1, HALF, HALF_PADDED)
                acc += _product(query_map_ptr, map_stride, r, rank, head * DIM + HALF, y_2, HALF, HALF_PADDED)
                if REST_PADDED > 0:
                    y_3 = tl.full((REST_PADDED,), 0.0, ACC)
                    for member in range(GROUP):
                        source = query_ptr + row * query_row_stride + (head * GROUP + member) * query_head_stride
                        y_3 += _vector(source, 2 * HALF, DIM - 2 * HALF, REST_PADDED).to(ACC)
                    first = head * DIM + 2 * HALF
                    acc += _product(query_map_ptr, map_stride, r, rank, first, y_3, DIM - 2 * HALF, REST_PADDED)
            tl.store(mapped_ptr + row * mapped_row_stride + r, _biased(acc, query_bias_ptr, r, rank), mask=r < rank)
        else:
            for head in range(HEADS):
                key = _vector(key_ptr + row * key_row_stride + head * key_head_stride, 0, DIM, DIM_PADDED).to(ACC)
                acc += _product(key_map_ptr, map_stride, r, rank, head * DIM, key, DIM, DIM_PADDED)
            acc = _biased(acc, key_bias_ptr, r, rank)
            target = index_ptr + row * index_row_stride + (length - 1) * index_stride + r
            count = tl.where(length <= capacity, rank, 0)
            if scale_ptr is None:
                tl.store(target, acc.to(index_ptr.dtype.element_ty), mask=r < count)
            else:
                wide = tl.where(r < rank, acc, 0.0).to(tl.float32)
                scale = digit_scale(tl.reduce(tl.abs(wide), 0, greater))
                tl.store(target, to_digits(wide / scale), mask=r < count)
                if length <= capacity:
                    tl.store(scale_ptr + row * scale_row_stride + length - 1, scale)
