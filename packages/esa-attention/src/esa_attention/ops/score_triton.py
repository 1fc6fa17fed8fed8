"""Scores of the middle tokens in a decoding step (sections 3.3 and 3.7 of the fact sheet), one fused Triton kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from effkit.errors import UserError
from effkit.triton import check_tensors, kernels, launch, power_of_two, widened
from esa_attention.ops.checks import check_integers, check_lengths, require
from esa_attention.ops.select_triton import SelectScratch, digit_bits

__all__ = ["MAX_PROXIMITY", "check_index", "check_scores", "decode_scores"]

MAX_PROXIMITY = 32  # a tile of tokens must be much wider than the window

_WARPS = 8
_PART = 128  # numbers of an index row that a tile holds at a time


def check_index(index: Tensor, index_scale: Tensor | None, query_index: Tensor, query_shape: tuple[int, ...]) -> None:
    """Check the compressed keys and queries.

    Args:
        index: ``(B, capacity, R)``.
        index_scale: ``(B, capacity)`` if ``index`` is int8, else ``None``.
        query_index: Compressed queries.
        query_shape: The shape they must have.

    Raises:
        UserError: If a shape, type or memory layout is wrong.
    """
    require(index.ndim == 3, f"index must have the shape (B, capacity, R), got {tuple(index.shape)}")
    if index.dtype == torch.int8:
        require(
            index_scale is not None and tuple(index_scale.shape) == tuple(index.shape[:2]),
            f"index_scale must have the shape {tuple(index.shape[:2])} for an int8 index, "
            f"got {None if index_scale is None else tuple(index_scale.shape)}",
        )
    elif not index.is_floating_point():
        raise UserError(f"index must be int8 or floating point, got {index.dtype}")
    elif index_scale is not None:
        raise UserError(f"index_scale must be None for an index in {index.dtype}, only int8 has scales")
    require(
        tuple(query_index.shape) == query_shape,
        f"query_index must have the shape {query_shape}, got {tuple(query_index.shape)}",
    )
    for name, tensor in {"index": index, "index_scale": index_scale, "query_index": query_index}.items():
        require(
            tensor is None or tensor.stride(-1) == 1,
            f"{name} must be contiguous in its last dimension, got another layout",
        )


def check_scores(own: Tensor, dilated: Tensor, shape: tuple[int, ...]) -> None:
    """Check the tensors that scores are written to.

    Raises:
        UserError: If a shape or memory layout is wrong.
    """
    for name, tensor in {"own": own, "dilated": dilated}.items():
        if tuple(tensor.shape) != shape or tensor.stride(-1) != 1 or tensor.dtype not in (torch.float32, torch.float64):
            raise UserError(
                f"{name} must be float32 of shape {shape}, contiguous in its last dimension, "
                f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
            )
    require(own.dtype == dilated.dtype, f"own and dilated must have one type, got {own.dtype} and {dilated.dtype}")


def _constants(rank: int, itemsize: int, proximity: int) -> dict[str, Any]:
    """Constants of the kernel; tiles, halo included, are as large as leaves registers for two programs a processor."""
    return {
        "RANK": rank,
        "PART": min(power_of_two(rank), _PART),
        "EPS": proximity,
        "LEVELS": (2 * proximity).bit_length(),
        "BLOCK": 256 if itemsize <= 2 and rank <= _PART else 128,
        "BITS": digit_bits()[0],
    }


def decode_scores(
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
    num_selected: int | None = None,
    scratch: SelectScratch | None = None,
    empty: bool = False,
) -> None:
    r"""Score all middle tokens for one query a row, and dilate the scores (Eqs. 3 and 8).

    ``own[b, j]`` is :math:`k'_j \cdot q'` (the subtraction of Eq. 4 is the same for all tokens of one query and is left
    out), ``dilated[b, j]`` the greatest of ``own`` over the middle tokens within ``proximity`` of ``j``. Both are minus
    infinity outside the middle, up to the capacity. Products and sums are in float32; the query is not rounded.

    Args:
        index: Compressed keys ``(B, capacity, R)``, float or int8; rows beyond the length may hold anything.
        index_scale: ``(B, capacity)`` float32 for an int8 index: a key is ``index * scale``. Else ``None``.
        query_index: Compressed queries ``(B, R)``, normally float32.
        start: First real token of every row ``(B,)``, int32 or int64.
        length: Number of tokens in all, the new one included, ``(1,)`` or ``(B,)``.
        num_initial: Size of the initial part (l_I).
        num_local: Size of the local part (l_L).
        proximity: Half-width of the max filter (eps), 0 to ``MAX_PROXIMITY``.
        own: Written, ``(B, capacity)`` float32 (float64 too where kernels are interpreted).
        dilated: Written, like ``own``.
        num_selected: If given, a row whose middle has no more tokens than this is skipped, and nothing is written for
            it: :func:`~esa_attention.ops.select_triton.select` with the same number takes all its tokens unseen.
        scratch: If given, emptied, and the histogram of the first digit counted on the way; pass it to ``select`` with
            ``histogram="ready"``.
        empty: The scratch was emptied already.

    Raises:
        UserError: If shapes, types or devices are wrong, or Triton cannot run here.
    """
    check_integers(0, num_initial=num_initial, proximity=proximity, num_selected=num_selected or 0)
    check_integers(1, num_local=num_local)
    require(proximity <= MAX_PROXIMITY, f"proximity must be at most {MAX_PROXIMITY}, got {proximity}")
    require(index.ndim == 3, f"index must have the shape (B, capacity, R), got {tuple(index.shape)}")
    batch, capacity, rank = index.shape
    check_index(index, index_scale, query_index, (batch, rank))
    check_lengths(start, length, batch)
    check_scores(own, dilated, (batch, capacity))
    check_tensors(
        index=index,
        index_scale=index_scale,
        query_index=query_index,
        start=start,
        length=length,
        own=own,
        dilated=dilated,
        scratch=None if scratch is None else scratch.zeroed,
    )
    if scratch is not None:
        scratch.check(batch, capacity)
        require(own.dtype == torch.float32, f"own must be float32 to be selected from, got {own.dtype}")
        if not empty:
            scratch.zeroed.zero_()

    import triton.language as tl

    index, query_index = widened(index), widened(query_index)
    constants = _constants(rank, index.element_size(), proximity)
    launch(
        kernels(__package__, "score_kernel").decode_scores_kernel,
        (-(-capacity // (constants["BLOCK"] - 2 * proximity)), batch),
        index,
        index_scale,
        query_index,
        start,
        length,
        own,
        dilated,
        None if scratch is None else scratch.zeroed,
        index.stride(0),
        index.stride(1),
        0 if index_scale is None else index_scale.stride(0),
        query_index.stride(0),
        0 if length.numel() == 1 else 1,
        own.stride(0),
        dilated.stride(0),
        0 if scratch is None else scratch.zeroed.stride(0),
        capacity,
        num_initial,
        num_local,
        -1 if num_selected is None else num_selected,
        warps=_WARPS,
        ACC=tl.float64 if own.dtype == torch.float64 else tl.float32,
        **constants,
    )
