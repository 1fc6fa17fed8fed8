"""All that a decoding step does before it scores, in one launch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from effkit.triton import check_tensors, dot_constants, kernels, launch, power_of_two
from esa_attention.ops.attend_shapes_triton import AttentionShapes, check_tables
from esa_attention.ops.checks import check_lengths, require

__all__ = ["Prepared", "can_prepare", "prepare_step"]

_RANKS = 128  # rows of a map that a program multiplies at most
_ZEROS = 1024


class Prepared(NamedTuple):
    """What scoring and attention need.

    Attributes:
        far: Queries at the far position, ``(B, H, D)``.
        local: Queries at their place in the window, ``(B, H, D)``.
        mapped: What the index is multiplied with, ``(B, R)``, at least float32.
    """

    far: Tensor
    local: Tensor
    mapped: Tensor


def can_prepare(store: Tensor, index: Tensor | None, index_scale: Tensor | None, query_map: Tensor | None) -> bool:
    """Whether the kernel does what is asked for; else there are torch's operators.

    Args:
        store: Keys and values ``(B, capacity, 2, K, D)``.
        index: Compressed keys, or ``None``.
        index_scale: Their scales in eight bits.
        query_map: On folded queries, or on all heads.
    """
    if query_map is None:
        return index is None  # keys themselves in eight bits are rounded over all heads at once
    return query_map.shape[1] == store.shape[3] * store.shape[4] and (
        index_scale is None or query_map.shape[0] <= _RANKS
    )


def prepare_step(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    store: Tensor,
    index: Tensor | None,
    index_scale: Tensor | None,
    query_map: Tensor | None,
    key_map: Tensor | None,
    query_bias: Tensor | None,
    key_bias: Tensor | None,
    start: Tensor,
    length: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    num_local: int,
    far_position: int,
    far_factor: float,
    zeroed: Tensor,
) -> Prepared:
    """Append the new token of every row, make its queries, and empty the histograms of the selection.

    Args:
        query: Unrotated ``(B, H, 1, D)``.
        key: ``(B, K, 1, D)``.
        value: ``(B, K, 1, D)``.
        store: Written at ``length - 1``: ``(B, capacity, 2, K, D)``. Where that is outside, nothing is written, and
            the far queries are NaN.
        index: Written likewise, ``(B, capacity, R)``; ``None`` without maps.
        index_scale: Written likewise, ``(B, capacity)``, for an int8 index.
        query_map: ``(R, K * D)``.
        key_map: ``(R, K * D)``.
        query_bias: ``(R,)``.
        key_bias: ``(R,)``.
        start: First real token of every row ``(B,)``.
        length: Tokens, the new one included, ``(1,)``.
        cos: Cosines ``(positions, rotary_dim / 2)``.
        sin: Sines.
        num_local: Size of the local part (l_L).
        far_position: Position that far attention is made from (w).
        far_factor: Factor on the rotated dimensions of far queries.
        zeroed: Written with zeros, ``(B, N)`` int32.

    Raises:
        UserError: If shapes, types or devices are wrong, or Triton cannot run here.
    """
    batch, heads, new, dim = query.shape
    kv_heads = store.shape[3]
    require(new == 1, f"query must have the shape (B, H, 1, D), got {tuple(query.shape)}")
    require(
        key.shape == value.shape == (batch, kv_heads, 1, dim) and key.dtype == value.dtype == store.dtype,
        f"key and value must be {store.dtype} of shape {(batch, kv_heads, 1, dim)}, got {key.dtype} of shape "
        f"{tuple(key.shape)} and {value.dtype} of shape {tuple(value.shape)}",
    )
    require(
        can_prepare(store, index, index_scale, query_map),
        "query_map must act on folded queries, and have at most 128 rows for an int8 index; without one there is no "
        "index but the keys",
    )
    require(length.numel() == 1, f"length must hold one number, got {length.numel()}")
    contiguous = (query, key, value, store, index, query_map, key_map, cos, sin, zeroed)
    require(
        all(t is None or t.stride(-1) == 1 for t in contiguous),
        "all tensors must be contiguous in their last dimension",
    )
    check_tables(cos, sin, dim, max(num_local, far_position) + 1)
    check_lengths(start, length, batch)
    check_tensors(query=query, key=key, value=value, store=store, start=start, length=length, cos=cos, sin=sin)

    shapes = AttentionShapes(batch, heads, kv_heads, 1, dim, cos.shape[1])
    constants, sizes = dot_constants(query.dtype), shapes.constants()
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    far = torch.empty(batch, heads, 1, dim, dtype=query.dtype, device=query.device)
    local = torch.empty_like(far)
    folded = torch.empty(batch, kv_heads * dim, dtype=wide, device=query.device)
    rank = 0 if query_map is None else query_map.shape[0]
    ranks = min(power_of_two(max(rank, 1)), _RANKS)
    mapped = folded if query_map is None else torch.empty(batch, rank, dtype=wide, device=query.device)
    fixed: dict[str, Any] = {key: sizes[key] for key in ("DIM", "DIM_PADDED", "HALF", "HALF_PADDED", "REST_PADDED")}
    launch(
        kernels(__package__, "prepare_kernel").prepare_kernel,
        (1, kv_heads + 2 * -(-rank // ranks), batch),
        *(query, key, value, store, index, index_scale, query_map, key_map, query_bias, key_bias),
        *(far, local, folded, mapped, zeroed, start, length, cos, sin),
        *(*query.stride()[:2], *key.stride()[:2], *value.stride()[:2], *store.stride()[:4]),
        *((0, 0) if index is None else index.stride()[:2]),
        0 if index_scale is None else index_scale.stride(0),
        0 if query_map is None else query_map.stride(0),
        *(*far.stride()[:2], folded.stride(0), mapped.stride(0), zeroed.stride(0), cos.stride(0)),
        *(num_local, far_position, far_factor, rank, zeroed.shape[1], store.shape[1]),
        GROUP=shapes.group,
        HEADS=kv_heads,
        RANKS=ranks,
        ZEROS=_ZEROS,
        warps=8,
        **fixed,
        **{name: constants[name] for name in ("DOT", "ACC", "EMULATE_BF16")},
    )
    return Prepared(far[:, :, 0], local[:, :, 0], mapped)
