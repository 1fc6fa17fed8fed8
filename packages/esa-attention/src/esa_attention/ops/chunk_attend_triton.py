"""Attention of a chunk of queries (section 3.8): far and local keys in one softmax, in Triton."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from effkit.triton import dot_constants, kernels, launch, power_of_two, widened
from esa_attention.ops.attend_shapes_triton import attention_shapes, output, tensor_cores
from esa_attention.ops.checks import check_integers, require

__all__ = ["prefill_attention"]

_LOG2_E = math.log2(math.e)
_ROTATE_TOKENS = 64  # tokens whose keys one program rotates


def _tile(rows: int, group: int, dim: int, dtype: torch.dtype, cores: bool) -> dict[str, Any]:
    """Rows and keys of a tile, warps and stages, by the registers and spills of the code compiled for sm_90.

    With 16-bit operands two warp groups of 64 rows share tiles of 64 keys, which three stages prefetch together with
    their indices. Exact float32 has no tensor cores and keeps its operands in registers, so its tiles are small.

    Args:
        rows: Queries times heads of the group that share a list.
        group: Heads of a group, which are not divided.
        dim: Head dimension, padded.
        dtype: Of the keys.
        cores: Whether products run on tensor cores.
    """
    if not cores:
        most, keys, warps, stages = (32, 32, 4, 1) if dim <= 64 else (16, 32, 4, 1) if dim <= 128 else (16, 16, 8, 1)
    else:
        most, keys, warps, stages = (128, 64, 8, 3) if dim <= 128 else (64, 32, 8, 3)
        if dtype == torch.float32:
            keys //= 2
    tile = max(min(power_of_two(rows, 16), most), power_of_two(group, 16))
    if cores and dim <= 128 and tile <= 64:
        warps = 4
    return {"ROWS": tile, "KEYS": keys, "warps": warps, "stages": stages}


def prefill_attention(
    query_far: Tensor,
    query_local: Tensor,
    kv: Tensor,
    selected: Tensor,
    count: Tensor,
    start: Tensor,
    length: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    scale_far: float,
    scale_local: float,
    num_initial: int,
    num_local: int,
    selection_block: int | None = None,
    out: Tensor | None = None,
    rotated: Tensor | None = None,
    is_rotated: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Attention of the last ``T`` tokens of every row: one softmax over far and local keys (section 3.8).

    Far keys (initial and selected tokens) meet ``query_far`` unrotated, all of them for all queries that share a list.
    Local keys (``num_local`` tokens before the chunk, and the chunk) are rotated to their positions 0, 1, ... in that
    window; query ``t`` sees those up to its own. Dimensions ``i`` and ``i + rotary_dim / 2`` are a pair, those from
    ``rotary_dim`` on are left. Products sum in float32.

    Args:
        query_far: Queries rotated to the far position, ``(B, H, T, D)``.
        query_local: Queries rotated to their places in the window, ``(B, H, T, D)``: token ``j`` has the place ``j``
            minus the first local token. What stands in rows of padding does not matter.
        kv: Unrotated keys and values ``(B, capacity, 2, K, D)``; tokens beyond the length may hold anything.
        selected: Absolute indices of selected tokens ``(B, k)``, or ``(B, N, k)`` with one list for each block of
            queries, int64.
        count: How many of them are meant, ``(B,)`` or ``(B, N)``, int32.
        start: First real token of every row ``(B,)``, int32 or int64.
        length: Number of tokens in all, the chunk included, ``(1,)`` or ``(B,)``.
        cos: Cosines ``(positions, rotary_dim / 2)`` of the window's positions, at least ``num_local + T`` of them,
            float32.
        sin: The same for sines.
        scale_far: Factor on the scores of far keys.
        scale_local: Factor on the scores of local keys.
        num_initial: Size of the initial part (l_I).
        num_local: Size of the local part (l_L).
        selection_block: Queries that share a list: query ``t`` uses list ``t // selection_block``; all by default.
        out: Written and returned if given.
        rotated: Scratch for rotated keys, ``(B, num_local + T, K, D)`` contiguous in the type of ``kv``; allocated if
            not given.
        is_rotated: Whether ``rotated`` holds the keys of the window already (``prepare_chunk``).

    Returns:
        Output ``(B, H, T, D)`` in the type of the queries, and the log of the sum of exponentials ``(B, H, T)``
        (natural log, float32, or float64 for float64 keys). Padding has output 0 and minus infinity.

    Raises:
        UserError: If shapes, types or devices are wrong, or Triton cannot run here.
    """
    for name, query in {"query_far": query_far, "query_local": query_local}.items():
        require(query.ndim == 4, f"{name} must have the shape (B, H, T, D), got {tuple(query.shape)}")
    batch, _, tokens, _ = query_far.shape
    block = tokens if selection_block is None else selection_block
    check_integers(1, T=tokens, selection_block=block)
    blocks = -(-tokens // block)
    if selected.ndim == 2 and blocks == 1:
        selected, count = selected[:, None], count[:, None] if count.ndim == 1 else count
    shapes = attention_shapes(
        *(query_far, query_local, kv, selected, count, start, length, cos, sin),
        *(num_initial, num_local, (batch, blocks)),
    )
    out = output(out, tuple(query_far.shape), query_far)
    window = num_local + tokens
    if rotated is None:
        rotated = torch.empty(batch, window, shapes.kv_heads, shapes.dim, dtype=kv.dtype, device=kv.device)
    require(
        tuple(rotated.shape) == (batch, window, shapes.kv_heads, shapes.dim)
        and rotated.dtype == kv.dtype
        and rotated.is_contiguous(),
        f"rotated must be contiguous {kv.dtype} of shape {(batch, window, shapes.kv_heads, shapes.dim)}, "
        f"got {rotated.dtype} of shape {tuple(rotated.shape)}",
    )

    constants: dict[str, Any] = dot_constants(kv.dtype)
    sizes = shapes.constants()
    dots = {key: constants[key] for key in ("DOT", "ACC", "EMULATE_BF16")}
    cores = tensor_cores(constants, kv.dtype)
    tile = _tile(shapes.group * min(block, tokens), shapes.group, sizes["DIM_PADDED"], kv.dtype, cores)
    wide = torch.float64 if kv.dtype == torch.float64 else torch.float32
    lse = torch.empty(batch, shapes.heads, tokens, dtype=wide, device=kv.device)
    written, turned = widened(out), widened(rotated)
    query_far, query_local, kv = widened(query_far), widened(query_local), widened(kv)
    cos, sin = widened(cos), widened(sin)
    length_stride = 0 if length.numel() == 1 else 1
    code = kernels(__package__, "chunk_attend_kernel")
    if not is_rotated:
        launch(
            code.rotate_kernel,
            (-(-window // _ROTATE_TOKENS), shapes.kv_heads, batch),
            *(kv, turned, start, length, cos, sin, *kv.stride()[:2], kv.stride(3), *turned.stride()[:3], length_stride),
            *(cos.stride(0), tokens, num_initial, num_local),
            TOKENS=_ROTATE_TOKENS,
            **{key: sizes[key] for key in ("DIM", "HALF", "HALF_PADDED", "REST_PADDED")},
            **dots,
        )
    tiles = -(-min(block, tokens) // (tile["ROWS"] // shapes.group))
    launch(
        code.chunk_attention_kernel,
        (blocks * tiles, shapes.kv_heads, batch),
        *(query_far, query_local, kv, turned, selected, count, start, length, written, lse),
        *(*query_far.stride()[:3], *query_local.stride()[:3], *kv.stride()[:4], *turned.stride()[:3]),
        *(*selected.stride()[:2], *count.stride(), *written.stride()[:3], length_stride),
        *(tokens, block, tiles, num_initial, num_local, scale_far * _LOG2_E, scale_local * _LOG2_E),
        GROUP=shapes.group,
        DIM=shapes.dim,
        DIM_PADDED=sizes["DIM_PADDED"],
        **tile,
        **constants,
    )
    return (out if written is out else out.copy_(written)), lse
