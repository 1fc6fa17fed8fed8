"""Triton kernels of attention for a chunk: rotation of the local window, then one softmax over far and local keys.

A program takes a tile of rows: the query heads of one group times some tokens, so that each key is read once for the
group. It first runs over the far list [initial | selected], gathered by index, then over local and current keys with
the causal mask, in the same online softmax, so nothing is merged.

- Far keys are gathered in the kernel: a row of one head is 256 bytes (bfloat16, 128 dimensions), whole cache lines, and
  after the first program that reads it a row comes from the L2 cache. A contiguous copy would be read the same way, and
  cost its own writing and a launch.
- Local keys are rotated beforehand, by ``rotate_kernel``: every tile of every head would rotate the same keys again,
  and a key rotated in registers has to go through them to shared memory, where an unrotated one is copied
  asynchronously. For 4,608 keys the copy is 9 MB against 57 GFLOP of attention (Llama-3-8B, 512 queries).
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import device_functions, kernels

_core, _common = device_functions(), kernels(__package__, "common_kernel")
loop_bound, operand = _core.loop_bound, _core.operand
attend_tile, columns, segments = _common.attend_tile, _common.columns, _common.segments


@triton.jit
def rotate_keys(
    tile,
    head,
    row,
    fresh,
    kv_ptr,  # (B, capacity, 2, K, DIM)
    rotated_ptr,  # (B, window, K, DIM)
    start_ptr,
    length_ptr,
    cos_ptr,  # (positions, HALF)
    sin_ptr,
    kv_row_stride,
    kv_token_stride,
    kv_head_stride,
    rotated_row_stride,
    rotated_token_stride,
    rotated_head_stride,
    length_stride,
    table_stride,
    new_tokens,
    num_initial,
    num_local,
    DIM: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PADDED: tl.constexpr,
    REST_PADDED: tl.constexpr,
    TOKENS: tl.constexpr,
    DOT: tl.constexpr,
    ACC: tl.constexpr,
    EMULATE_BF16: tl.constexpr,
):
    """A tile of local and current tokens but the last ``fresh``; ``row`` int64."""
    _, length, _, local = segments(start_ptr, length_ptr, length_stride, row, new_tokens, num_initial, num_local)
    first = tile * TOKENS
    last = length - fresh
    if first < last - local:
        position = first + tl.arange(0, TOKENS)
        seen = local + position < last
        keys = kv_ptr + row * kv_row_stride + head.to(tl.int64) * kv_head_stride
        source = (local + position) * kv_token_stride
        turned = rotated_ptr + row * rotated_row_stride + head.to(tl.int64) * rotated_head_stride
        target = turned + position.to(tl.int64)[:, None] * rotated_token_stride

        key_1 = columns(keys, source, seen, 0, HALF, HALF_PADDED).to(ACC)
        key_2 = columns(keys, source, seen, HALF, HALF, HALF_PADDED).to(ACC)
        cos = columns(cos_ptr, position * table_stride, seen, 0, HALF, HALF_PADDED).to(ACC)
        sin = columns(sin_ptr, position * table_stride, seen, 0, HALF, HALF_PADDED).to(ACC)
        d = tl.arange(0, HALF_PADDED)[None, :]
        mask = seen[:, None] & (d < HALF)
        tl.store(target + d, operand(key_1 * cos - key_2 * sin, DOT, EMULATE_BF16), mask=mask)
        tl.store(target + HALF + d, operand(key_2 * cos + key_1 * sin, DOT, EMULATE_BF16), mask=mask)
        if REST_PADDED > 0:
            d = 2 * HALF + tl.arange(0, REST_PADDED)[None, :]
            key = columns(keys, source, seen, 2 * HALF, DIM - 2 * HALF, REST_PADDED)
            tl.store(target + d, operand(key, DOT, EMULATE_BF16), mask=seen[:, None] & (d < DIM))


@triton.jit(do_not_specialize=["new_tokens", "num_initial", "num_local"])
def rotate_kernel(
    kv_ptr,  # (B, capacity, 2, K, DIM)
    rotated_ptr,  # (B, window, K, DIM)
    start_ptr,
    length_ptr,
    cos_ptr,  # (positions, HALF)
    sin_ptr,
    kv_row_stride,
    kv_token_stride,
    kv_head_stride,
    rotated_row_stride,
    rotated_token_stride,
    rotated_head_stride,
    length_stride,
    table_stride,
    new_tokens,
    num_initial,
    num_local,
    DIM: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PADDED: tl.constexpr,
    REST_PADDED: tl.constexpr,
    TOKENS: tl.constexpr,
    DOT: tl.constexpr,
    ACC: tl.constexpr,
    EMULATE_BF16: tl.constexpr,
):
    """Rotate the keys of local and current tokens to their positions 0, 1, ... in the window."""
    rotate_keys(
        tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64), 0,
        kv_ptr, rotated_ptr, start_ptr, length_ptr, cos_ptr, sin_ptr, kv_row_stride, kv_token_stride, kv_head_stride,
        rotated_row_stride, rotated_token_stride, rotated_head_stride, length_stride, table_stride, new_tokens,
        num_initial, num_local, DIM, HALF, HALF_PADDED, REST_PADDED, TOKENS, DOT, ACC, EMULATE_BF16,
    )  # fmt: skip


@triton.jit(
    do_not_specialize=["queries", "block", "tiles", "num_initial", "num_local", "scale_far", "scale_local"],
)
def chunk_attention_kernel(
    far_ptr,  # (B, H, T, DIM) queries at the far position
    local_ptr,  # (B, H, T, DIM) queries at their places after the local tokens
    kv_ptr,  # (B, capacity, 2, K, DIM)
    rotated_ptr,  # (B, window, K, DIM)
    selected_ptr,  # (B, blocks, num_selected)
    count_ptr,  # (B, blocks)
    start_ptr,
    length_ptr,
    out_ptr,  # (B, H, T, DIM)
    lse_ptr,  # (B, H, T)
    far_row_stride,
    far_head_stride,
    far_query_stride,
    local_row_stride,
    local_head_stride,
    local_query_stride,
    kv_row_stride,
    kv_token_stride,
    kv_value_stride,
    kv_head_stride,
    rotated_row_stride,
    rotated_token_stride,
    rotated_head_stride,
    selected_row_stride,
    selected_block_stride,
    count_row_stride,
    count_block_stride,
    out_row_stride,
    out_head_stride,
    out_query_stride,
    length_stride,
    queries,
    block,  # queries that share a list
    tiles,  # of a block
    num_initial,
    num_local,
    scale_far,  # in powers of two
    scale_local,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr,
    KEYS: tl.constexpr,
    DOT: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
    EMULATE_BF16: tl.constexpr,
):
    """Attention of one tile of rows over far and local keys."""
    head = tl.program_id(1)
    row = tl.program_id(2).to(tl.int64)
    heads = tl.num_programs(1) * GROUP
    start, length, middle, local = segments(start_ptr, length_ptr, length_stride, row, queries, num_initial, num_local)

    # Row r is member r % GROUP of the group at token r // GROUP of the tile.
    TOKENS: tl.constexpr = ROWS // GROUP
    number = tl.program_id(0) // tiles
    first_query = number * block + tl.program_id(0) % tiles * TOKENS
    last_query = tl.minimum(tl.minimum(first_query + TOKENS, (number + 1) * block), queries)
    if first_query >= last_query:
        return
    r = tl.arange(0, ROWS)
    query = first_query + r // GROUP
    query_head = head * GROUP + r % GROUP
    real = (query < last_query) & (r < TOKENS * GROUP)
    window = tl.maximum(length - local, 0).to(tl.int32)
    # Place of query 0 in the window; negative where the chunk begins with padding.
    shift = (length - queries - local).to(tl.int32)
    position = shift + query
    real = real & (position >= 0)

    kv_ptr += row * kv_row_stride + head.to(tl.int64) * kv_head_stride
    rotated_ptr += row * rotated_row_stride + head.to(tl.int64) * rotated_head_stride
    top = tl.full((ROWS,), -float("inf"), ACC)
    total = tl.full((ROWS,), 0.0, ACC)
    acc = tl.full((ROWS, DIM_PADDED), 0.0, ACC)
    entry = tl.arange(0, KEYS)

    rows = query_head.to(tl.int64) * far_head_stride + query * far_query_stride
    q = operand(columns(far_ptr + row * far_row_stride, rows, real, 0, DIM, DIM_PADDED), DOT, EMULATE_BF16)
    initial = (middle - start).to(tl.int32)
    selected_ptr += row * selected_row_stride + number.to(tl.int64) * selected_block_stride - initial
    far = initial + tl.load(count_ptr + row * count_row_stride + number * count_block_stride)
    for base in range(0, loop_bound(far), KEYS):
        place = base + entry
        seen = place < far
        token = tl.load(selected_ptr + place, mask=seen & (place >= initial), other=0)
        offset = tl.where(place < initial, start + place, token) * kv_token_stride
        key = operand(columns(kv_ptr, offset, seen, 0, DIM, DIM_PADDED), DOT, EMULATE_BF16)
        score = tl.dot(q, tl.trans(key), out_dtype=ACC, input_precision=PRECISION) * scale_far
        score = tl.where(seen[None, :], score, -float("inf"))
        value = operand(columns(kv_ptr + kv_value_stride, offset, seen, 0, DIM, DIM_PADDED), DOT, EMULATE_BF16)
        acc, top, total = attend_tile(score, value, acc, top, total, DOT, PRECISION, EMULATE_BF16)

    rows = query_head.to(tl.int64) * local_head_stride + query * local_query_stride
    q = operand(columns(local_ptr + row * local_row_stride, rows, real, 0, DIM, DIM_PADDED), DOT, EMULATE_BF16)
    # Whole tiles of keys that every query of this tile sees need no mask.
    free = tl.maximum(shift + first_query + 1, 0) // KEYS * KEYS
    for base in range(0, loop_bound(free), KEYS):
        place = base + entry
        key = columns(rotated_ptr, place.to(tl.int64) * rotated_token_stride, None, 0, DIM, DIM_PADDED)
        key = operand(key, DOT, EMULATE_BF16)
        score = tl.dot(q, tl.trans(key), out_dtype=ACC, input_precision=PRECISION) * scale_local
        offset = (local + place) * kv_token_stride
        value = columns(kv_ptr + kv_value_stride, offset, None, 0, DIM, DIM_PADDED)
        value = operand(value, DOT, EMULATE_BF16)
        acc, top, total = attend_tile(score, value, acc, top, total, DOT, PRECISION, EMULATE_BF16)
    for base in range(loop_bound(free), loop_bound(tl.minimum(shift + last_query, window)), KEYS):
        place = base + entry
        seen = place < window
        key = columns(rotated_ptr, place.to(tl.int64) * rotated_token_stride, seen, 0, DIM, DIM_PADDED)
        key = operand(key, DOT, EMULATE_BF16)
        score = tl.dot(q, tl.trans(key), out_dtype=ACC, input_precision=PRECISION) * scale_local
        score = tl.where(place[None, :] <= position[:, None], score, -float("inf"))
        offset = (local + place) * kv_token_stride
        value = operand(columns(kv_ptr + kv_value_stride, offset, seen, 0, DIM, DIM_PADDED), DOT, EMULATE_BF16)
        acc, top, total = attend_tile(score, value, acc, top, total, DOT, PRECISION, EMULATE_BF16)

    some = real & (total != 0.0)  # NaN is not 0: the output of a query with NaN is NaN
    total = tl.where(some, total, 1.0)
    out = tl.where(some[:, None], acc / total[:, None], 0.0)
    d = tl.arange(0, DIM_PADDED)
    written = (query < last_query) & (r < TOKENS * GROUP)
    out_ptr += row * out_row_stride
    place = query_head.to(tl.int64) * out_head_stride + query * out_query_stride
    tl.store(out_ptr + place[:, None] + d[None, :], out, mask=written[:, None] & (d < DIM)[None, :])
    lse = tl.where(some, (top + tl.log2(total)) * 0.6931471805599453, -float("inf"))
    tl.store(lse_ptr + (row * heads + query_head) * queries + query, lse, mask=written)
