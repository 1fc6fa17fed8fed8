"""Triton kernel that makes all a step needs of its queries: rotated to two positions, and summed over groups.

In torch these are a dozen small operations, in a decoding step each of them a launch that takes longer than its work;
and places in the window follow from lengths that only the device knows.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import device_functions, kernels

_core, _common = device_functions(), kernels(__package__, "common_kernel")
operand = _core.operand
columns, put_columns, segments = _common.columns, _common.put_columns, _common.segments


@triton.jit
def turn_queries(
    tile,
    head,
    row,
    query_ptr,  # (B, H, T, DIM)
    far_ptr,  # (B, H, T, DIM)
    local_ptr,  # (B, H, T, DIM)
    folded_ptr,  # (B, T, K DIM) or None
    start_ptr,
    length_ptr,
    cos_ptr,  # (positions, HALF)
    sin_ptr,
    query_row_stride,
    query_head_stride,
    query_token_stride,
    far_row_stride,
    far_head_stride,
    far_token_stride,
    local_row_stride,
    local_head_stride,
    local_token_stride,
    folded_row_stride,
    folded_token_stride,
    length_stride,
    table_stride,
    tokens,
    num_local,
    far_position,
    scale_far,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PADDED: tl.constexpr,
    REST_PADDED: tl.constexpr,
    TOKENS: tl.constexpr,
    DOT: tl.constexpr,  # type of the queries
    ACC: tl.constexpr,
    EMULATE_BF16: tl.constexpr,
):
    """Queries of one group of heads, a tile of tokens; ``row`` int64."""
    _, length, _, local = segments(start_ptr, length_ptr, length_stride, row, tokens, 0, num_local)
    token = tile * TOKENS + tl.arange(0, TOKENS)
    real = token < tokens
    # Padding has no place in the window; it gets one that exists.
    position = tl.maximum(length - tokens + token - local, 0)
    cos = columns(cos_ptr, position * table_stride, real, 0, HALF, HALF_PADDED).to(ACC)
    sin = columns(sin_ptr, position * table_stride, real, 0, HALF, HALF_PADDED).to(ACC)
    position = tl.full((TOKENS,), 0, tl.int64) + far_position
    cos_far = columns(cos_ptr, position * table_stride, real, 0, HALF, HALF_PADDED).to(ACC)
    sin_far = columns(sin_ptr, position * table_stride, real, 0, HALF, HALF_PADDED).to(ACC)
    folded_1 = tl.full((TOKENS, HALF_PADDED), 0.0, ACC)
    folded_2 = tl.full((TOKENS, HALF_PADDED), 0.0, ACC)
    if REST_PADDED > 0:
        folded_3 = tl.full((TOKENS, REST_PADDED), 0.0, ACC)
    for member in range(GROUP):
        query_head = (head * GROUP + member).to(tl.int64)
        source = query_ptr + row * query_row_stride + query_head * query_head_stride
        offset = token.to(tl.int64) * query_token_stride
        x_1 = columns(source, offset, real, 0, HALF, HALF_PADDED).to(ACC)
        x_2 = columns(source, offset, real, HALF, HALF, HALF_PADDED).to(ACC)

        target = local_ptr + row * local_row_stride + query_head * local_head_stride
        offset = token.to(tl.int64) * local_token_stride
        put_columns(target, offset, operand(x_1 * cos - x_2 * sin, DOT, EMULATE_BF16), real, HALF, HALF_PADDED)
        put_columns(target + HALF, offset, operand(x_2 * cos + x_1 * sin, DOT, EMULATE_BF16), real, HALF, HALF_PADDED)

        y_1 = (x_1 * cos_far - x_2 * sin_far) * scale_far
        y_2 = (x_2 * cos_far + x_1 * sin_far) * scale_far
        folded_1 += y_1
        folded_2 += y_2
        far_target = far_ptr + row * far_row_stride + query_head * far_head_stride
        far_offset = token.to(tl.int64) * far_token_stride
        put_columns(far_target, far_offset, operand(y_1, DOT, EMULATE_BF16), real, HALF, HALF_PADDED)
        put_columns(far_target + HALF, far_offset, operand(y_2, DOT, EMULATE_BF16), real, HALF, HALF_PADDED)
        if REST_PADDED > 0:
            source_offset = token.to(tl.int64) * query_token_stride
            x_3 = columns(source, source_offset, real, 2 * HALF, DIM - 2 * HALF, REST_PADDED)
            put_columns(target + 2 * HALF, offset, x_3, real, DIM - 2 * HALF, REST_PADDED)
            put_columns(far_target + 2 * HALF, far_offset, x_3, real, DIM - 2 * HALF, REST_PADDED)
            folded_3 += x_3.to(ACC)
    if folded_ptr is not None:
        target = folded_ptr + row * folded_row_stride + head * DIM
        offset = token.to(tl.int64) * folded_token_stride
        put_columns(target, offset, folded_1, real, HALF, HALF_PADDED)
        put_columns(target + HALF, offset, folded_2, real, HALF, HALF_PADDED)
        if REST_PADDED > 0:
            put_columns(target + 2 * HALF, offset, folded_3, real, DIM - 2 * HALF, REST_PADDED)


@triton.jit(do_not_specialize=["tokens", "num_local", "far_position", "scale_far"])
def query_kernel(
    query_ptr,  # (B, H, T, DIM)
    far_ptr,  # (B, H, T, DIM)
    local_ptr,  # (B, H, T, DIM)
    folded_ptr,  # (B, T, K DIM)
    start_ptr,
    length_ptr,
    cos_ptr,  # (positions, HALF)
    sin_ptr,
    query_row_stride,
    query_head_stride,
    query_token_stride,
    far_row_stride,
    far_head_stride,
    far_token_stride,
    local_row_stride,
    local_head_stride,
    local_token_stride,
    folded_row_stride,
    folded_token_stride,
    length_stride,
    table_stride,
    tokens,
    num_local,
    far_position,
    scale_far,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PADDED: tl.constexpr,
    REST_PADDED: tl.constexpr,
    TOKENS: tl.constexpr,
    DOT: tl.constexpr,  # type of the queries
    ACC: tl.constexpr,
    EMULATE_BF16: tl.constexpr,
):
    """Queries of one group of heads, some tokens at a time."""
    turn_queries(
        tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64),
        query_ptr, far_ptr, local_ptr, folded_ptr, start_ptr, length_ptr, cos_ptr, sin_ptr, query_row_stride,
        query_head_stride, query_token_stride, far_row_stride, far_head_stride, far_token_stride, local_row_stride,
        local_head_stride, local_token_stride, folded_row_stride, folded_token_stride, length_stride, table_stride,
        tokens, num_local, far_position, scale_far, GROUP, DIM, HALF, HALF_PADDED, REST_PADDED, TOKENS, DOT, ACC,
        EMULATE_BF16,
    )  # fmt: skip
