"""What the two attention wrappers share: the checks of their arguments, and the sizes that follow from them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from effkit.errors import UserError
from effkit.triton import check_tensors, power_of_two
from esa_attention.ops.checks import check_integers, check_lengths, require

__all__ = ["AttentionShapes", "attention_shapes", "check_tables", "output", "tensor_cores"]


class AttentionShapes(NamedTuple):
    """Sizes of an attention call: batch, query heads, key-value heads, queries, head dimension, half of the rotated."""

    batch: int
    heads: int
    kv_heads: int
    tokens: int
    dim: int
    half: int

    @property
    def group(self) -> int:
        """Query heads of a key-value head."""
        return self.heads // self.kv_heads

    def constants(self) -> dict[str, Any]:
        """Constants of kernels: the dimensions, and those that are rotated and left, padded."""
        rest = self.dim - 2 * self.half
        return {
            "DIM": self.dim,
            "DIM_PADDED": power_of_two(self.dim, 16),
            "HALF": self.half,
            "HALF_PADDED": power_of_two(self.half, 16),
            "REST_PADDED": power_of_two(rest, 16) if rest else 0,
        }


def check_tables(cos: Tensor, sin: Tensor, dim: int, positions: int) -> None:
    """Check the tables of the rotary embedding.

    Args:
        cos: ``(positions, rotary_dim / 2)``.
        sin: The same.
        dim: Head dimension.
        positions: How many of them are needed.

    Raises:
        UserError: If a shape, type or memory layout is wrong.
    """
    require(
        cos.ndim == 2 and cos.shape == sin.shape and 1 <= cos.shape[1] <= dim // 2,
        f"cos and sin must have the shape (positions, rotary_dim / 2) with rotary_dim at most {dim}, "
        f"got {tuple(cos.shape)} and {tuple(sin.shape)}",
    )
    require(cos.shape[0] >= positions, f"cos and sin must hold {positions} positions, got {cos.shape[0]}")
    require(
        cos.stride(1) == 1 and cos.stride() == sin.stride() and cos.dtype == sin.dtype,
        "cos and sin must be of one type and layout, contiguous in their last dimension",
    )


def attention_shapes(
    query_far: Tensor,
    query_local: Tensor,
    kv: Tensor,
    selected: Tensor,
    count: Tensor,
    start: Tensor,
    length: Tensor,
    cos: Tensor,
    sin: Tensor,
    num_initial: int,
    num_local: int,
    lists: tuple[int, ...],
) -> AttentionShapes:
    """Check everything that both kernels take.

    Args:
        query_far: ``(B, H, T, D)`` here, also for a decoding step.
        query_local: The same.
        kv: ``(B, capacity, 2, K, D)``.
        selected: ``(*lists, k)``.
        count: ``lists``.
        start: ``(B,)``.
        length: ``(1,)`` or ``(B,)``.
        cos: ``(positions, rotary_dim / 2)``.
        sin: ``(positions, rotary_dim / 2)``.
        num_initial: Size of the initial part.
        num_local: Size of the local part.
        lists: Shape that the lists of selected tokens must have.

    Raises:
        UserError: If a shape, type, device or memory layout is wrong, or Triton cannot run here.
    """
    check_integers(0, num_initial=num_initial)
    check_integers(1, num_local=num_local)
    require(
        kv.ndim == 5 and kv.shape[2] == 2 and kv.is_floating_point() and kv.stride(4) == 1,
        f"kv must be floating point of shape (B, capacity, 2, K, D), contiguous in its last dimension, "
        f"got {kv.dtype} of shape {tuple(kv.shape)}",
    )
    batch, heads, tokens, dim = query_far.shape
    for name, query in {"query_far": query_far, "query_local": query_local}.items():
        require(
            query.shape == query_far.shape and query.shape[0] == kv.shape[0] and query.shape[3] == kv.shape[4],
            f"{name} must be for {kv.shape[0]} rows and {kv.shape[4]} dimensions like kv, and both queries of one "
            f"shape, got {tuple(query.shape)}",
        )
        require(
            query.is_floating_point() and query.stride(3) == 1,
            f"{name} must be floating point and contiguous in its last dimension, got {query.dtype} "
            f"with strides {query.stride()}",
        )
    require(heads % kv.shape[3] == 0, f"kv must have heads that divide the {heads} of the queries, got {kv.shape[3]}")
    check_tables(cos, sin, dim, num_local + tokens)
    require(
        selected.dtype == torch.int64 and tuple(selected.shape[:-1]) == lists and selected.stride(-1) == 1,
        f"selected must be int64 of shape {(*lists, 'k')}, got {selected.dtype} of shape {tuple(selected.shape)}",
    )
    require(
        count.dtype == torch.int32 and tuple(count.shape) == lists,
        f"count must be int32 of shape {lists}, got {count.dtype} of shape {tuple(count.shape)}",
    )
    check_lengths(start, length, batch)
    check_tensors(
        query_far=query_far,
        query_local=query_local,
        kv=kv,
        selected=selected,
        count=count,
        start=start,
        length=length,
        cos=cos,
        sin=sin,
    )
    return AttentionShapes(batch, heads, kv.shape[3], tokens, dim, cos.shape[1])


def output(given: Tensor | None, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """The tensor to write to: ``given``, checked, or a new one.

    Raises:
        UserError: If ``given`` has another shape, type or device than ``shape`` and ``like``.
    """
    if given is None:
        return like.new_empty(shape)
    if tuple(given.shape) != shape or given.dtype != like.dtype or given.stride(-1) != 1 or given.device != like.device:
        raise UserError(
            f"out must be {like.dtype} of shape {shape} on '{like.device}', contiguous in its last dimension, "
            f"got {given.dtype} of shape {tuple(given.shape)} on '{given.device}'"
        )
    return given


def tensor_cores(constants: dict[str, Any], dtype: torch.dtype) -> bool:
    """Whether products of this type run on tensor cores."""
    return dtype in (torch.float16, torch.bfloat16) or constants["PRECISION"] == "tf32"
