"""Triton kernels of attention in a decoding step: split over the keys of a row, then merged.

The keys of a row are one list [initial | selected | local | current]. A program takes an equal share of it for one
key-value head and all query heads of its group, padded to the 16 rows of a tensor core: each key is read once for the
group. The step is bound by reading these keys, so far ones are gathered straight from the cache, and local ones are
rotated in registers. Rotation pairs dimension ``i`` with ``i + HALF``, so a local key is loaded as two halves (and the
dimensions that are not rotated), and the score is a sum of two or three products.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import device_functions, kernels

_core, _common = device_functions(), kernels(__package__, "common_kernel")
add, greater, loop_bound, operand = _core.add, _core.greater, _core.loop_bound, _core.operand
attend_tile, columns, segments = _common.attend_tile, _common.columns, _common.segments


@triton.jit
def _merged(
    part_ptr, top_ptr, total_ptr, flat, splits, DIM: tl.constexpr, DIM_PADDED: tl.constexpr, SPLITS: tl.constexpr
):
    """Softmax over the union of all shares of one query, and its lse; 0 and minus infinity if there is no key."""
    split = tl.arange(0, SPLITS)
    d = tl.arange(0, DIM_PADDED)
    place = flat * splits + split
    # Other programs have written these a moment ago: they are in the L2 cache.
    top = tl.load(top_ptr + place, mask=split < splits, other=-float("inf"), cache_modifier=".cg")
    highest = tl.reduce(top, 0, greater)
    safe = tl.where(highest == -float("inf"), 0.0, highest)
    weight = tl.exp2(top - safe)
    total = tl.load(total_ptr + place, mask=split < splits, other=0.0, cache_modifier=".cg")
    # An empty share holds whatever was in memory, and 0 times NaN is NaN. The NaN of a query is no empty share: its sum
    # is NaN and not 0, and so must be what comes out.
    mask = (total != 0.0)[:, None] & (d < DIM)[None, :]
    total = tl.reduce(weight * total, 0, add)
    part = tl.load(part_ptr + place[:, None] * DIM + d[None, :], mask=mask, other=0.0, cache_modifier=".cg")
    out = tl.reduce(part * weight[:, None], 0, add)
    total_or_1 = tl.where(total != 0.0, total, 1.0)
    lse = tl.where(total != 0.0, (safe + tl.log2(total_or_1)) * 0.6931471805599453, -float("inf"))
    return out / total_or_1, lse


@triton.jit(do_not_specialize=["num_initial", "num_local", "scale_far", "scale_local"])
def decode_attention_kernel(
    far_ptr,  # (B, H, DIM) queries at the far position
    local_ptr,  # (B, H, DIM) queries at their place after the local tokens
    kv_ptr,  # (B, capacity, 2, K, DIM)
    selected_ptr,  # (B, num_selected)
    count_ptr,  # (B,)
    start_ptr,
    length_ptr,
    cos_ptr,  # (positions, HALF)
    sin_ptr,
    part_ptr,  # (B, H, splits, DIM) in ACC
    top_ptr,  # (B, H, splits)
    total_ptr,  # (B, H, splits)
    out_ptr,  # (B, H, DIM); or None, to be merged by a kernel of its own
    lse_ptr,  # (B, H)
    finished_ptr,  # (B, K) zeros
    far_row_stride,
    far_head_stride,
    local_row_stride,
    local_head_stride,
    kv_row_stride,
    kv_token_stride,
    kv_value_stride,
    kv_head_stride,
    selected_row_stride,
    out_row_stride,
    out_head_stride,
    finished_row_stride,
    length_stride,
    table_stride,
    num_initial,
    num_local,
    scale_far,  # in powers of two
    scale_local,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,  # GROUP, padded
    DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr,
    HALF: tl.constexpr,  # of the rotated dimensions
    HALF_PADDED: tl.constexpr,
    REST_PADDED: tl.constexpr,  # dimensions that are not rotated, padded; 0 if there are none
    KEYS: tl.constexpr,  # of a tile
    SPLITS: tl.constexpr,  # padded
    DOT: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
    EMULATE_BF16: tl.constexpr,
):
    """Attention over one share of the keys: unnormalised output, greatest score and sum of weights."""
    split = tl.program_id(0)
    head = tl.program_id(1)
    row = tl.program_id(2).to(tl.int64)
    splits = tl.num_programs(0)
    heads = tl.num_programs(1) * GROUP
    start, length, middle, local = segments(start_ptr, length_ptr, length_stride, row, 1, num_initial, num_local)
    initial = (middle - start).to(tl.int32)
    far = initial + tl.load(count_ptr + row)
    number = far + tl.maximum(length - local, 0).to(tl.int32)
    share = ((number + splits - 1) // splits + 15) // 16 * 16
    low = tl.minimum(split * share, number)
    high = tl.minimum(low + share, number)

    member = tl.arange(0, ROWS)
    query_head = head * GROUP + member
    in_group = member < GROUP
    kv_ptr += row * kv_row_stride + head.to(tl.int64) * kv_head_stride
    top = tl.full((ROWS,), -float("inf"), ACC)
    total = tl.full((ROWS,), 0.0, ACC)
    acc = tl.full((ROWS, DIM_PADDED), 0.0, ACC)
    entry = tl.arange(0, KEYS)

    last = tl.minimum(high, far)
    if low < last:
        query = columns(far_ptr + row * far_row_stride, query_head * far_head_stride, in_group, 0, DIM, DIM_PADDED)
        query = operand(query, DOT, EMULATE_BF16)
        selected_ptr += row * selected_row_stride - initial
        for base in range(loop_bound(low), loop_bound(last), KEYS):
            place = base + entry
            seen = place < last
            token = tl.load(selected_ptr + place, mask=seen & (place >= initial), other=0)
            token = tl.where(place < initial, start + place, token)
            offset = token * kv_token_stride
            key = operand(columns(kv_ptr, offset, seen, 0, DIM, DIM_PADDED), DOT, EMULATE_BF16)
            score = tl.dot(query, tl.trans(key), out_dtype=ACC, input_precision=PRECISION) * scale_far
            score = tl.where(seen[None, :], score, -float("inf"))
            value = operand(columns(kv_ptr + kv_value_stride, offset, seen, 0, DIM, DIM_PADDED), DOT, EMULATE_BF16)
            acc, top, total = attend_tile(score, value, acc, top, total, DOT, PRECISION, EMULATE_BF16)

    first = tl.maximum(low, far)
    if first < high:
        local_ptr += row * local_row_stride
        heads_offset = query_head * local_head_stride
        query_1 = operand(columns(local_ptr, heads_offset, in_group, 0, HALF, HALF_PADDED), DOT, EMULATE_BF16)
        query_2 = operand(columns(local_ptr, heads_offset, in_group, HALF, HALF, HALF_PADDED), DOT, EMULATE_BF16)
        if REST_PADDED > 0:
            query_3 = operand(
                columns(local_ptr, heads_offset, in_group, 2 * HALF, DIM - 2 * HALF, REST_PADDED), DOT, EMULATE_BF16
            )
        for base in range(loop_bound(first), loop_bound(high), KEYS):
            seen = base + entry < high
            position = base - far + entry
            offset = (local + position) * kv_token_stride
            key_1 = columns(kv_ptr, offset, seen, 0, HALF, HALF_PADDED).to(ACC)
            key_2 = columns(kv_ptr, offset, seen, HALF, HALF, HALF_PADDED).to(ACC)
            cos = columns(cos_ptr, position * table_stride, seen, 0, HALF, HALF_PADDED).to(ACC)
            sin = columns(sin_ptr, position * table_stride, seen, 0, HALF, HALF_PADDED).to(ACC)
            turned = operand(key_1 * cos - key_2 * sin, DOT, EMULATE_BF16)
            score = tl.dot(query_1, tl.trans(turned), out_dtype=ACC, input_precision=PRECISION)
            turned = operand(key_2 * cos + key_1 * sin, DOT, EMULATE_BF16)
            score = tl.dot(query_2, tl.trans(turned), score, out_dtype=ACC, input_precision=PRECISION)
            if REST_PADDED > 0:
                key = columns(kv_ptr, offset, seen, 2 * HALF, DIM - 2 * HALF, REST_PADDED)
                key = operand(key, DOT, EMULATE_BF16)
                score = tl.dot(query_3, tl.trans(key), score, out_dtype=ACC, input_precision=PRECISION)
            score = tl.where(seen[None, :], score * scale_local, -float("inf"))
            value = operand(columns(kv_ptr + kv_value_stride, offset, seen, 0, DIM, DIM_PADDED), DOT, EMULATE_BF16)
            acc, top, total = attend_tile(score, value, acc, top, total, DOT, PRECISION, EMULATE_BF16)

    place = (row * heads + query_head) * splits + split
    tl.store(top_ptr + place, top, mask=in_group)
    tl.store(total_ptr + place, total, mask=in_group)
    if low < high:  # the merge does not look at empty shares
        d = tl.arange(0, DIM_PADDED)
        mask = in_group[:, None] & (d < DIM)[None, :]
        tl.store(part_ptr + place[:, None] * DIM + d[None, :], acc, mask=mask)

    if out_ptr is not None:
        # Whoever comes last has all shares before it. The barrier puts this program's own before its count.
        tl.debug_barrier()
        finished = tl.atomic_add(finished_ptr + row * finished_row_stride + head, 1, sem="acq_rel")
        if finished == splits - 1:
            d = tl.arange(0, DIM_PADDED)
            for number in range(GROUP):
                one = head * GROUP + number
                out, lse = _merged(part_ptr, top_ptr, total_ptr, row * heads + one, splits, DIM, DIM_PADDED, SPLITS)
                tl.store(out_ptr + row * out_row_stride + one * out_head_stride + d, out, mask=d < DIM)
                tl.store(lse_ptr + row * heads + one, lse)


@triton.jit(do_not_specialize=["splits"])
def merge_kernel(
    part_ptr,
    top_ptr,
    total_ptr,
    out_ptr,  # (B, H, DIM)
    lse_ptr,  # (B, H)
    out_row_stride,
    out_head_stride,
    splits,
    DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr,
    SPLITS: tl.constexpr,  # padded
):
    """Softmax over the union of all shares of one query; 0 and minus infinity if there is no key."""
    head = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64)
    flat = row * tl.num_programs(0) + head
    out, lse = _merged(part_ptr, top_ptr, total_ptr, flat, splits, DIM, DIM_PADDED, SPLITS)
    d = tl.arange(0, DIM_PADDED)
    tl.store(out_ptr + row * out_row_stride + head * out_head_stride + d, out, mask=d < DIM)
    tl.store(lse_ptr + flat, lse)
