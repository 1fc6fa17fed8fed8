"""Scores of the middle tokens for a chunk of queries (Eq. 4), in two passes of Triton matrix products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from effkit.triton import check_tensors, dot_constants, kernels, launch, power_of_two, widened
from esa_attention.ops.checks import check_integers, check_lengths, require
from esa_attention.ops.score_triton import MAX_PROXIMITY, check_index, check_scores
from esa_attention.ops.select_triton import SelectScratch, digit_bits

__all__ = ["chunk_scores"]

_PART = 128  # numbers of an index row that a tile holds at a time
_DILATE_TOKENS = 1024
_SPLITS = 128  # parts of the sequence in the first pass, at most: with 4 tiles of queries 4 programs a processor


def _tile(queries: int, wide: bool, tensor_cores: bool) -> tuple[int, int, int, int]:
    """Queries and tokens of a tile, warps and stages, the same in both passes so that they round alike.

    Two warp groups with 64 x 64 of the tile each keep the running maximum and the product in registers. Exact float32
    has no tensor cores and keeps its operands in registers, so its tiles are small.
    """
    if not tensor_cores:
        return min(power_of_two(queries, 16), 32), 32, 4, 1
    return min(power_of_two(queries, 16), 128), 128, 8, 2 if wide else 3


def chunk_scores(
    index: Tensor,
    index_scale: Tensor | None,
    query_index: Tensor,
    start: Tensor,
    length: Tensor,
    *,
    num_initial: int,
    num_local: int,
    proximity: int,
    own: Tensor,
    dilated: Tensor,
    new_tokens: int | None = None,
    first_new: int = 0,
    selection_block: int | None = None,
    best: Tensor | None = None,
    num_selected: int = 0,
    scratch: SelectScratch | None = None,
) -> None:
    r"""Score all middle tokens for blocks of queries, and dilate the scores (Eqs. 4 and 8).

    ``own[b, n, m]`` is :math:`F(m; C) = \max_{c \in C} [f(m; c) - \max_{m'} f(m'; c)]` with :math:`f = q' \cdot k'`,
    the maximum taken over the queries ``c`` of block ``n``; ``dilated`` the greatest of ``own`` over the middle tokens
    within ``proximity``. Both are minus infinity outside the middle; a chunk that begins with padding has no middle.
    The best token of a query gets exactly 0. Products take operands in the type of the index (an int8 index: bfloat16,
    which holds its values exactly) and sum in float32; no matrix of queries by tokens exists.

    Args:
        index: Compressed keys ``(B, capacity, R)``, float or int8; rows beyond the length may hold anything.
        index_scale: ``(B, capacity)`` float32 for an int8 index: a key is ``index * scale``. Else ``None``.
        query_index: Compressed queries ``(B, T, R)`` of the chunk, or of consecutive tokens of it.
        start: First real token of every row ``(B,)``, int32 or int64.
        length: Number of tokens in all, the chunk included, ``(1,)`` or ``(B,)``.
        num_initial: Size of the initial part (l_I).
        num_local: Size of the local part (l_L).
        proximity: Half-width of the max filter (eps), 0 to ``MAX_PROXIMITY``.
        own: Written: ``(B, capacity)``, or ``(B, N, capacity)`` with ``N = ceil(T / selection_block)``, float32
            (float64 too where kernels are interpreted).
        dilated: Written, like ``own``.
        new_tokens: Tokens of the chunk, ``T`` by default: they say where the middle ends.
        first_new: Place in the chunk of the first query; only checked against ``new_tokens``.
        selection_block: Queries that choose together; all by default.
        best: Scratch ``(B, T)`` of zeros, int32 (int64 for float64 scores); made if not given.
        num_selected: How many are selected (k), for ``scratch``.
        scratch: From :func:`~esa_attention.ops.select_triton.select_scratch`, its ``zeroed`` all zeros: filled with the
            histograms that :func:`~esa_attention.ops.select_triton.select` begins with.

    Raises:
        UserError: If shapes, types or devices are wrong, or Triton cannot run here.
    """
    require(index.ndim == 3, f"index must have the shape (B, capacity, R), got {tuple(index.shape)}")
    require(query_index.ndim == 3, f"query_index must have the shape (B, T, R), got {tuple(query_index.shape)}")
    batch, capacity, rank = index.shape
    queries = query_index.shape[1]
    new_tokens = queries if new_tokens is None else new_tokens
    block = queries if selection_block is None else selection_block
    check_integers(0, num_initial=num_initial, proximity=proximity, first_new=first_new)
    check_integers(1, num_local=num_local, T=queries, selection_block=block)
    require(proximity <= MAX_PROXIMITY, f"proximity must be at most {MAX_PROXIMITY}, got {proximity}")
    require(
        first_new + queries <= new_tokens,
        f"new_tokens must be at least first_new + T = {first_new + queries}, got {new_tokens}",
    )
    check_index(index, index_scale, query_index, (batch, queries, rank))
    check_lengths(start, length, batch)
    blocks = -(-queries // block)
    check_scores(own, dilated, (batch, capacity) if own.ndim == 2 and blocks == 1 else (batch, blocks, capacity))
    check_tensors(
        index=index,
        index_scale=index_scale,
        query_index=query_index,
        start=start,
        length=length,
        own=own,
        dilated=dilated,
        best=best,
    )
    integers = torch.int64 if own.dtype == torch.float64 else torch.int32
    if best is None:
        best = torch.zeros(batch, queries, dtype=integers, device=own.device)
    require(
        tuple(best.shape) == (batch, queries) and best.dtype == integers and best.stride(1) == 1,
        f"best must be {integers} of shape {(batch, queries)}, got {best.dtype} of shape {tuple(best.shape)}",
    )
    if scratch is not None:
        scratch.check(batch * blocks, capacity)

    dot = torch.bfloat16 if index.dtype == torch.int8 else index.dtype
    constants = dot_constants(torch.float64 if own.dtype == torch.float64 else dot)
    tensor_cores = dot not in (torch.float32, torch.float64) or constants["PRECISION"] == "tf32"
    code = kernels(__package__, "prefill_kernel")
    index, query_index = widened(index), widened(query_index)
    constants |= {"RANK": rank, "PART": min(power_of_two(rank, 16), _PART)}
    inputs = (index, index_scale, query_index, start, length)
    strides: tuple[Any, ...] = (
        index.stride(0),
        index.stride(1),
        0 if index_scale is None else index_scale.stride(0),
        query_index.stride(0),
        query_index.stride(1),
        0 if length.numel() == 1 else 1,
        best.stride(0),
    )
    best = best.view(torch.uint64 if own.dtype == torch.float64 else torch.uint32)
    sizes = (new_tokens, num_initial, num_local)

    tile_queries, tile_tokens, warps, stages = _tile(block, rank > _PART, tensor_cores)
    splits = min(-(-capacity // tile_tokens), _SPLITS)
    span = -(-capacity // (splits * tile_tokens)) * tile_tokens
    launch(
        code.row_max_kernel,
        (splits, -(-queries // tile_queries), batch),
        *inputs,
        best,
        *strides,
        *(queries, *sizes, span),
        **constants,
        QUERIES=tile_queries,
        TOKENS=tile_tokens,
        warps=warps,
        stages=stages,
        fuse=False,
    )
    own_strides = (own.stride(0), own.stride(1) if own.ndim == 3 else 0)
    launch(
        code.chunk_scores_kernel,
        (-(-capacity // tile_tokens), blocks, batch),
        *inputs,
        *(best, own),
        *(*strides, *own_strides),
        *(capacity, queries, block, *sizes),
        **constants,
        QUERIES=tile_queries,
        TOKENS=tile_tokens,
        warps=warps,
        stages=stages,
        fuse=False,
    )
    launch(
        code.dilate_kernel,
        (-(-capacity // _DILATE_TOKENS), blocks, batch),
        *(own, dilated, None if scratch is None else scratch.zeroed, start, length),
        *(*own_strides, dilated.stride(0), dilated.stride(1) if dilated.ndim == 3 else 0),
        0 if scratch is None else scratch.zeroed.stride(0),
        *(0 if length.numel() == 1 else 1, capacity, *sizes, num_selected),
        EPS=proximity,
        TOKENS=_DILATE_TOKENS,
        BITS=digit_bits()[0],
        warps=8,
    )
