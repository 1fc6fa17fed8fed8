"""Triton kernel of all that a chunk of a prompt does before it scores, in one launch; see :mod:`prepare_kernel`.

Programs of one grid share out what depends on nothing but the inputs: appending keys and values, queries at their two
places, rotated keys of the window, the index of the new tokens, mapped queries, and zeros for what follows. The maps
act on all heads, so their programs rotate the queries once more for themselves.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import device_functions, kernels

_core, _common = device_functions(), kernels(__package__, "common_kernel")
greater, operand = _core.greater, _core.operand
columns, put_columns, segments = _common.columns, _common.put_columns, _common.segments
turn_queries = kernels(__package__, "query_kernel").turn_queries
rotate_keys = kernels(__package__, "chunk_attend_kernel").rotate_keys
digit_scale, to_digits = _common.digit_scale, _common.to_digits


@triton.jit
def _append(
    tile,
    head,
    row,
    key_ptr,  # (B, K, T, DIM)
    value_ptr,
    store_ptr,  # (B, capacity, 2, K, DIM)
    rotated_ptr,  # (B, window, K, DIM)
    start_ptr,
    length_ptr,
    cos_ptr,
    sin_ptr,
    key_row_stride,
    key_head_stride,
    key_token_stride,
    value_row_stride,
    value_head_stride,
    value_token_stride,
    store_row_stride,
    store_token_stride,
    store_value_stride,
    store_head_stride,
    rotated_row_stride,
    rotated_token_stride,
    rotated_head_stride,
    length_stride,
    table_stride,
    tokens,
    num_local,
    DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PADDED: tl.constexpr,
    REST_PADDED: tl.constexpr,
    TOKENS: tl.constexpr,
    DOT: tl.constexpr,
    ACC: tl.constexpr,
    EMULATE_BF16: tl.constexpr,
):
    """Keys and values of a tile of new tokens of one head into the cache, and the keys rotated into the window."""
    _, length, _, local = segments(start_ptr, length_ptr, length_stride, row, tokens, 0, num_local)
    token = tile * TOKENS + tl.arange(0, TOKENS)
    real = token < tokens
    place = (length - tokens + token) * store_token_stride
    target = store_ptr + row * store_row_stride + head.to(tl.int64) * store_head_stride

    source = value_ptr + row * value_row_stride + head.to(tl.int64) * value_head_stride
    value = columns(source, token.to(tl.int64) * value_token_stride, real, 0, DIM, DIM_PADDED)
    put_columns(target + store_value_stride, place, value, real, DIM, DIM_PADDED)

    source = key_ptr + row * key_row_stride + head.to(tl.int64) * key_head_stride
    offset = token.to(tl.int64) * key_token_stride
    key_1 = columns(source, offset, real, 0, HALF, HALF_PADDED)
    key_2 = columns(source, offset, real, HALF, HALF, HALF_PADDED)
    put_columns(target, place, key_1, real, HALF, HALF_PADDED)
    put_columns(target + HALF, place, key_2, real, HALF, HALF_PADDED)

    position = length - tokens + token - local
    seen = real & (position >= 0)  # padding has no place in the window
    cos = columns(cos_ptr, position * table_stride, seen, 0, HALF, HALF_PADDED).to(ACC)
    sin = columns(sin_ptr, position * table_stride, seen, 0, HALF, HALF_PADDED).to(ACC)
    key_1, key_2 = key_1.to(ACC), key_2.to(ACC)
    turned = rotated_ptr + row * rotated_row_stride + head.to(tl.int64) * rotated_head_stride
    window = position * rotated_token_stride
    put_columns(turned, window, operand(key_1 * cos - key_2 * sin, DOT, EMULATE_BF16), seen, HALF, HALF_PADDED)
    put_columns(turned + HALF, window, operand(key_2 * cos + key_1 * sin, DOT, EMULATE_BF16), seen, HALF, HALF_PADDED)
    if REST_PADDED > 0:
        key = columns(source, offset, real, 2 * HALF, DIM - 2 * HALF, REST_PADDED)
        put_columns(target + 2 * HALF, place, key, real, DIM - 2 * HALF, REST_PADDED)
        key = operand(key, DOT, EMULATE_BF16)
        put_columns(turned + 2 * HALF, window, key, seen, DIM - 2 * HALF, REST_PADDED)


@triton.jit
def _part(ptr, rows_offset, mask, first, d, inside):
    """Dimensions ``first + d`` of the rows in ``mask``."""
    return tl.load(ptr + rows_offset[:, None] + (first + d)[None, :], mask=mask[:, None] & inside[None, :], other=0.0)


@triton.jit
def _times(x, map_ptr, map_stride, r, rank, first, d, inside, acc, PRECISION: tl.constexpr):
    """``acc`` plus some columns of rows times the same columns of a map ``(RANK, K DIM)``."""
    place = map_ptr + r[None, :] * map_stride + (first + d)[:, None]
    weight = tl.load(place, mask=(r < rank)[None, :] & inside[:, None], other=0.0).to(acc.dtype)
    return tl.dot(x.to(acc.dtype), weight, acc, out_dtype=acc.dtype, input_precision=PRECISION)


@triton.jit
def _map_queries(
    tile,
    row,
    query_ptr,
    map_ptr,
    bias_ptr,
    mapped_ptr,  # (B, T, RANK)
    cos_ptr,
    sin_ptr,
    query_row_stride,
    query_head_stride,
    query_token_stride,
    map_stride,
    mapped_row_stride,
    mapped_token_stride,
    table_stride,
    tokens,
    far_position,
    scale_far,
    rank,
    GROUP: tl.constexpr,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PADDED: tl.constexpr,
    REST_PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    RANKS: tl.constexpr,
    PART: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Index of a tile of queries: at the far position, summed over groups, times the map of queries."""
    token = tile * ROWS + tl.arange(0, ROWS)
    real = token < tokens
    offset = token.to(tl.int64) * query_token_stride
    r = tl.arange(0, RANKS)
    acc = tl.full((ROWS, RANKS), 0.0, ACC)
    for head in range(HEADS):
        for first in tl.static_range(0, HALF_PADDED, PART):
            d = first + tl.arange(0, PART)
            inside = d < HALF
            cos = tl.load(cos_ptr + far_position * table_stride + d, mask=inside, other=0.0).to(ACC)[None, :]
            sin = tl.load(sin_ptr + far_position * table_stride + d, mask=inside, other=0.0).to(ACC)[None, :]
            y_1 = tl.full((ROWS, PART), 0.0, ACC)
            y_2 = tl.full((ROWS, PART), 0.0, ACC)
            for member in range(GROUP):
                source = query_ptr + row * query_row_stride + (head * GROUP + member) * query_head_stride
                x_1 = _part(source, offset, real, 0, d, inside).to(ACC)
                x_2 = _part(source, offset, real, HALF, d, inside).to(ACC)
                y_1 += (x_1 * cos - x_2 * sin) * scale_far
                y_2 += (x_2 * cos + x_1 * sin) * scale_far
            acc = _times(y_1, map_ptr, map_stride, r, rank, head * DIM, d, inside, acc, PRECISION)
            acc = _times(y_2, map_ptr, map_stride, r, rank, head * DIM + HALF, d, inside, acc, PRECISION)
        for first in tl.static_range(0, REST_PADDED, PART):
            d = first + tl.arange(0, PART)
            inside = d < DIM - 2 * HALF
            y_1 = tl.full((ROWS, PART), 0.0, ACC)
            for member in range(GROUP):
                source = query_ptr + row * query_row_stride + (head * GROUP + member) * query_head_stride
                y_1 += _part(source, offset, real, 2 * HALF, d, inside).to(ACC)
            acc = _times(y_1, map_ptr, map_stride, r, rank, head * DIM + 2 * HALF, d, inside, acc, PRECISION)
    if bias_ptr is not None:
        acc += tl.load(bias_ptr + r, mask=r < rank, other=0.0).to(ACC)[None, :]
    place = mapped_ptr + row * mapped_row_stride + token.to(tl.int64)[:, None] * mapped_token_stride + r[None, :]
    tl.store(place, acc, mask=real[:, None] & (r < rank)[None, :])


@triton.jit
def _map_keys(
    tile,
    row,
    key_ptr,
    map_ptr,
    bias_ptr,
    index_ptr,  # (B, capacity, RANK)
    scale_ptr,  # (B, capacity) or None
    length_ptr,
    key_row_stride,
    key_head_stride,
    key_token_stride,
    map_stride,
    index_row_stride,
    index_stride,
    scale_row_stride,
    length_stride,
    tokens,
    rank,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    RANKS: tl.constexpr,
    PART: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Index of a tile of new tokens, in the type in which it is kept."""
    token = tile * ROWS + tl.arange(0, ROWS)
    real = token < tokens
    offset = token.to(tl.int64) * key_token_stride
    r = tl.arange(0, RANKS)
    acc = tl.full((ROWS, RANKS), 0.0, ACC)
    for head in range(HEADS):
        source = key_ptr + row * key_row_stride + head * key_head_stride
        for first in tl.static_range(0, DIM_PADDED, PART):
            d = first + tl.arange(0, PART)
            x = _part(source, offset, real, 0, d, d < DIM)
            acc = _times(x, map_ptr, map_stride, r, rank, head * DIM, d, d < DIM, acc, PRECISION)
    if bias_ptr is not None:
        acc += tl.load(bias_ptr + r, mask=r < rank, other=0.0).to(ACC)[None, :]
    place = tl.load(length_ptr + row * length_stride).to(tl.int64) - tokens + token
    target = index_ptr + row * index_row_stride + place[:, None] * index_stride + r[None, :]
    mask = real[:, None] & (r < rank)[None, :]
    if scale_ptr is None:
        tl.store(target, acc.to(index_ptr.dtype.element_ty), mask=mask)
    else:
        wide = tl.where((r < rank)[None, :], acc, 0.0).to(tl.float32)
        scale = digit_scale(tl.reduce(tl.abs(wide), 1, greater))
        tl.store(target, to_digits(wide / scale[:, None]), mask=mask)
        tl.store(scale_ptr + row * scale_row_stride + place, scale, mask=real)


@triton.jit(do_not_specialize=["tokens", "num_initial", "num_local", "far_position", "scale_far", "rank", "zeroed"])
def chunk_prepare_kernel(
    query_ptr,  # (B, H, T, DIM)
    key_ptr,  # (B, K, T, DIM)
    value_ptr,
    store_ptr,  # (B, capacity, 2, K, DIM)
    index_ptr,  # (B, capacity, RANK) or None
    scale_ptr,  # (B, capacity) or None
    query_map_ptr,  # (RANK, K DIM) or None
    key_map_ptr,
    query_bias_ptr,  # (RANK,) or None
    key_bias_ptr,
    far_ptr,  # (B, H, T, DIM)
    local_ptr,
    folded_ptr,  # (B, T, K DIM), or None with maps
    mapped_ptr,  # (B, T, RANK) or None
    rotated_ptr,  # (B, window, K, DIM)
    zeroed_ptr,  # (zeroed,)
    start_ptr,
    length_ptr,
    cos_ptr,  # (positions, HALF)
    sin_ptr,
    query_row_stride,
    query_head_stride,
    query_token_stride,
    key_row_stride,
    key_head_stride,
    key_token_stride,
    value_row_stride,
    value_head_stride,
    value_token_stride,
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
    target_token_stride,
    folded_row_stride,
    folded_token_stride,
    mapped_row_stride,
    mapped_token_stride,
    rotated_row_stride,
    rotated_token_stride,
    rotated_head_stride,
    length_stride,
    table_stride,
    tokens,
    num_initial,
    num_local,
    far_position,
    scale_far,
    rank,
    zeroed,
    GROUP: tl.constexpr,
    HEADS: tl.constexpr,  # key-value heads
    DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PADDED: tl.constexpr,
    REST_PADDED: tl.constexpr,
    TOKENS: tl.constexpr,  # whose keys and queries a program takes
    WINDOW: tl.constexpr,  # whose keys a program rotates
    ROWS: tl.constexpr,  # tokens that a program maps
    RANKS: tl.constexpr,
    PART: tl.constexpr,  # columns of a map at a time
    ZEROS: tl.constexpr,
    DOT: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,  # of the maps
    EMULATE_BF16: tl.constexpr,
):
    """The program's second number says which part is its own, the first which tile of it."""
    tile = tl.program_id(0)
    part = tl.program_id(1)
    row = tl.program_id(2).to(tl.int64)
    number = (tl.program_id(2) * tl.num_programs(1) + part) * tl.num_programs(0) + tile
    programs = tl.num_programs(0) * tl.num_programs(1) * tl.num_programs(2)
    for base in range(number * ZEROS, zeroed, programs * ZEROS):
        place = base + tl.arange(0, ZEROS)
        tl.store(zeroed_ptr + place, tl.full((ZEROS,), 0, tl.int32), mask=place < zeroed)
    if part < HEADS:
        if tile * TOKENS < tokens:
            _append(
                tile, part, row, key_ptr, value_ptr, store_ptr, rotated_ptr, start_ptr, length_ptr, cos_ptr, sin_ptr,
                key_row_stride, key_head_stride, key_token_stride, value_row_stride, value_head_stride,
                value_token_stride, store_row_stride, store_token_stride, store_value_stride, store_head_stride,
                rotated_row_stride, rotated_token_stride, rotated_head_stride, length_stride, table_stride, tokens,
                num_local, DIM, DIM_PADDED, HALF, HALF_PADDED, REST_PADDED, TOKENS, DOT, ACC, EMULATE_BF16,
            )  # fmt: skip
            turn_queries(
                tile, part, row, query_ptr, far_ptr, local_ptr, folded_ptr, start_ptr, length_ptr, cos_ptr, sin_ptr,
                query_row_stride, query_head_stride, query_token_stride, target_row_stride, target_head_stride,
                target_token_stride, target_row_stride, target_head_stride, target_token_stride, folded_row_stride,
                folded_token_stride, length_stride, table_stride, tokens, num_local, far_position, scale_far,
                GROUP, DIM, HALF, HALF_PADDED, REST_PADDED, TOKENS, DOT, ACC, EMULATE_BF16,
            )  # fmt: skip
    elif part < 2 * HEADS:
        rotate_keys(
            tile, part - HEADS, row, tokens, store_ptr, rotated_ptr, start_ptr, length_ptr, cos_ptr, sin_ptr,
            store_row_stride, store_token_stride, store_head_stride, rotated_row_stride, rotated_token_stride,
            rotated_head_stride, length_stride, table_stride, tokens, num_initial, num_local,
            DIM, HALF, HALF_PADDED, REST_PADDED, WINDOW, DOT, ACC, EMULATE_BF16,
        )  # fmt: skip
    elif query_map_ptr is not None:  # noqa: SIM102  # a constant: the rest is not compiled without
        if tile * ROWS < tokens:
            if part == 2 * HEADS:
                _map_queries(
                    tile, row, query_ptr, query_map_ptr, query_bias_ptr, mapped_ptr, cos_ptr, sin_ptr,
                    query_row_stride, query_head_stride, query_token_stride, map_stride, mapped_row_stride,
                    mapped_token_stride, table_stride, tokens, far_position, scale_far, rank,
                    GROUP, HEADS, DIM, HALF, HALF_PADDED, REST_PADDED, ROWS, RANKS, PART, ACC, PRECISION,
                )  # fmt: skip
            else:
                _map_keys(
                    tile, row, key_ptr, key_map_ptr, key_bias_ptr, index_ptr, scale_ptr, length_ptr,
                    key_row_stride, key_head_stride, key_token_stride, map_stride, index_row_stride, index_stride,
                    scale_row_stride, length_stride, tokens, rank,
                    HEADS, DIM, DIM_PADDED, ROWS, RANKS, PART, ACC, PRECISION,
                )  # fmt: skip
