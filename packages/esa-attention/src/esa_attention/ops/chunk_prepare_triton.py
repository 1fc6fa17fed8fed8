"""All that a chunk of a prompt does before it scores, in one launch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from effkit.triton import check_tensors, dot_constants, interpreted, kernels, launch, power_of_two
from esa_attention.ops.attend_shapes_triton import AttentionShapes, check_tables
from esa_attention.ops.checks import check_integers, check_lengths, require

__all__ = ["PreparedChunk", "can_prepare_chunk", "prepare_chunk"]

_TOKENS = 16  # whose keys and queries a program takes, and that it maps
_WINDOW = 64  # whose keys a program rotates
_RANKS = 256  # rows of a map at most: a program holds all of a token's
_PART = 32  # columns of a map at a time
_ZEROS = 1024


class PreparedChunk(NamedTuple):
    """What scoring and attention need.

    Attributes:
        far: Queries at the far position, ``(B, H, T, D)``.
        local: Queries at their places in the window, ``(B, H, T, D)``.
        mapped: What the index is multiplied with, ``(B, T, R)``, at least float32.
        rotated: Keys of the window, rotated, ``(B, num_local + T, K, D)``.
    """

    far: Tensor
    local: Tensor
    mapped: Tensor
    rotated: Tensor


def can_prepare_chunk(
    dtype: torch.dtype, index_dtype: torch.dtype | None, query_map: Tensor | None, key_map: Tensor | None
) -> bool:
    """Whether the kernel does what is asked for; else there are torch's operators.

    Args:
        dtype: Of queries, keys and values.
        index_dtype: Of compressed keys; ``None`` where the keys are the index.
        query_map: On folded queries, or on all heads.
        key_map: ``(R, K * D)``.
    """
    if interpreted() and torch.bfloat16 in (dtype, index_dtype):
        return False  # the interpreter would write to a copy
    if query_map is None or key_map is None:
        # Keys themselves in eight bits are rounded over all heads at once.
        return query_map is key_map and index_dtype is None
    return index_dtype is not None and query_map.shape == key_map.shape and key_map.shape[0] <= _RANKS


def prepare_chunk(
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
    num_initial: int,
    num_local: int,
    far_position: int,
    far_factor: float,
    zeroed: Tensor,
) -> PreparedChunk:
    """Append the new tokens of every row, make their queries, rotate the window, and write zeros.

    Args:
        query: Unrotated ``(B, H, T, D)``.
        key: ``(B, K, T, D)``.
        value: ``(B, K, T, D)``.
        store: Written at ``length - T`` and after: ``(B, capacity, 2, K, D)``.
        index: Written likewise, ``(B, capacity, R)``; ``None`` without maps.
        index_scale: Written likewise, ``(B, capacity)``, for an int8 index.
        query_map: ``(R, K * D)``.
        key_map: ``(R, K * D)``.
        query_bias: ``(R,)``.
        key_bias: ``(R,)``.
        start: First real token of every row ``(B,)``.
        length: Tokens, the new ones included, ``(1,)``; there must be room for them.
        cos: Cosines ``(positions, rotary_dim / 2)``.
        sin: Sines.
        num_initial: Size of the initial part (l_I).
        num_local: Size of the local part (l_L).
        far_position: Position that far attention is made from (w).
        far_factor: Factor on the rotated dimensions of far queries.
        zeroed: Written with zeros, int32, contiguous.

    Raises:
        UserError: If shapes, types or devices are wrong, or Triton cannot run here.
    """
    batch, heads, tokens, dim = query.shape
    kv_heads = store.shape[3]
    check_integers(0, num_initial=num_initial, far_position=far_position)
    check_integers(1, num_local=num_local, T=tokens)
    require(
        key.shape == value.shape == (batch, kv_heads, tokens, dim) and key.dtype == value.dtype == store.dtype,
        f"key and value must be {store.dtype} of shape {(batch, kv_heads, tokens, dim)}, got {key.dtype} of shape "
        f"{tuple(key.shape)} and {value.dtype} of shape {tuple(value.shape)}",
    )
    require(
        can_prepare_chunk(store.dtype, None if index is None else index.dtype, query_map, key_map),
        f"maps must both act on folded queries and keys and have at most {_RANKS} rows; without them there is no "
        "index but the keys",
    )
    require(length.numel() == 1, f"length must hold one number, got {length.numel()}")
    rows = (query, key, value, store, index, query_map, key_map, cos, sin, zeroed)
    require(
        all(t is None or t.stride(-1) == 1 for t in rows) and zeroed.is_contiguous(),
        "all tensors must be contiguous in their last dimension",
    )
    check_tables(cos, sin, dim, max(num_local + tokens, far_position + 1))
    check_lengths(start, length, batch)
    check_tensors(query=query, key=key, value=value, store=store, start=start, length=length, cos=cos, sin=sin)

    shapes = AttentionShapes(batch, heads, kv_heads, tokens, dim, cos.shape[1])
    constants, sizes = dot_constants(query.dtype), shapes.constants()
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    far = torch.empty(batch, heads, tokens, dim, dtype=query.dtype, device=query.device)
    local = torch.empty_like(far)
    rotated = torch.empty(batch, num_local + tokens, kv_heads, dim, dtype=store.dtype, device=query.device)
    rank = 0 if query_map is None else query_map.shape[0]
    mapped = torch.empty(batch, tokens, rank or kv_heads * dim, dtype=wide, device=query.device)
    exact = query_map is None
    tile = min(power_of_two(tokens), _TOKENS)
    fixed: dict[str, Any] = {key: sizes[key] for key in ("DIM", "DIM_PADDED", "HALF", "HALF_PADDED", "REST_PADDED")}
    tiles = max(-(-tokens // tile), -(-num_local // _WINDOW))
    launch(
        kernels(__package__, "chunk_prepare_kernel").chunk_prepare_kernel,
        (tiles, 2 * kv_heads + (0 if exact else 2), batch),
        *(query, key, value, store, index, index_scale, query_map, key_map, query_bias, key_bias),
        *(far, local, mapped if exact else None, None if exact else mapped, rotated, zeroed, start, length, cos, sin),
        *(*query.stride()[:3], *key.stride()[:3], *value.stride()[:3], *store.stride()[:4]),
        *((0, 0) if index is None else index.stride()[:2]),
        0 if index_scale is None else index_scale.stride(0),
        0 if query_map is None else query_map.stride(0),
        *(*far.stride()[:3], *mapped.stride()[:2], *mapped.stride()[:2], *rotated.stride()[:3]),
        *(0, cos.stride(0), tokens, num_initial, num_local, far_position, far_factor, rank, zeroed.numel()),
        GROUP=shapes.group,
        HEADS=kv_heads,
        TOKENS=tile,
        WINDOW=_WINDOW,
        ROWS=_TOKENS,
        RANKS=power_of_two(max(rank, 1), 16),
        PART=min(_PART, sizes["HALF_PADDED"]),
        ZEROS=_ZEROS,
        warps=4,
        stages=1,  # prefetching the maps would spill
        PRECISION=dot_constants(wide)["PRECISION"],
        **fixed,
        **{name: constants[name] for name in ("DOT", "ACC", "EMULATE_BF16")},
    )
    return PreparedChunk(far, local, mapped, rotated)
