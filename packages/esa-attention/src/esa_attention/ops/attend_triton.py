"""Attention over [initial | selected] at far positions and [local | current] at true ones (section 3.8), in Triton.

This file has the decoding step; :func:`prefill_attention` comes from :mod:`esa_attention.ops.chunk_attend_triton`.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from effkit.triton import dot_constants, kernels, launch, power_of_two, widened
from esa_attention.ops.attend_shapes_triton import attention_shapes, output, tensor_cores
from esa_attention.ops.checks import check_integers, require
from esa_attention.ops.chunk_attend_triton import prefill_attention

__all__ = ["decode_attention", "decode_splits", "prefill_attention"]

_LOG2_E = math.log2(math.e)


def _tile(dim: int, cores: bool) -> dict[str, Any]:
    """Keys of a tile, warps and stages, by the registers and shared memory of the code compiled for sm_90.

    Three stages are what it takes to prefetch keys whose indices are loaded too; tiles of this size let three programs
    share a processor, which keeps more of its memory requests in flight than one program with larger tiles. Exact
    float32 keeps its operands in registers.
    """
    keys = max(4096 // dim, 16)
    if cores:
        return {"KEYS": min(keys, 64), "warps": 4, "stages": 3}
    return {"KEYS": min(keys, 32), "warps": 4 if dim <= 128 else 8, "stages": 1}


@functools.cache
def _processors(device: torch.device) -> int:
    """Streaming multiprocessors of a GPU; elsewhere those of an H100, for which the sizes were chosen."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132


def decode_splits(batch: int, num_kv_heads: int, num_keys: int, processors: int = 132) -> int:
    """How many programs share the keys of one head in a decoding step.

    Two programs for each processor (an H100 has 132) keep its memory busy; a share of less than 128 keys would be over
    before its prefetching pays.

    Args:
        batch: Rows.
        num_kv_heads: Key-value heads.
        num_keys: Keys that a row attends to: initial, selected and local ones.
        processors: Of the device.
    """
    wanted = -(-2 * processors // (batch * num_kv_heads))
    return max(1, min(wanted, num_keys // 128, 128))


def decode_attention(
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
    num_splits: int | None = None,
    out: Tensor | None = None,
    finished: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Attention of the newest token of every row: one softmax over far and local keys (section 3.8).

    Far keys (initial and selected tokens) meet ``query_far`` unrotated, as if all of them stood at position 0. Local
    keys (the last ``num_local`` tokens, and the new one) are rotated to their positions 0, 1, ... in that window:
    dimensions ``i`` and ``i + rotary_dim / 2`` are a pair, those from ``rotary_dim`` on are left. Products sum in
    float32.

    Args:
        query_far: Queries rotated to the far position, ``(B, H, D)``.
        query_local: Queries rotated to their place in the window, which is the number of local tokens, ``(B, H, D)``.
        kv: Unrotated keys and values ``(B, capacity, 2, K, D)``; tokens beyond the length may hold anything.
        selected: Absolute indices of selected tokens ``(B, k)`` int64.
        count: How many of them are meant ``(B,)`` int32.
        start: First real token of every row ``(B,)``, int32 or int64.
        length: Number of tokens in all, the new one included, ``(1,)`` or ``(B,)``.
        cos: Cosines ``(positions, rotary_dim / 2)`` of the window's positions, at least ``num_local + 1`` of them,
            float32 (a narrower type halves what is read of them, and loses as much as it does in the model).
        sin: The same for sines.
        scale_far: Factor on the scores of far keys.
        scale_local: Factor on the scores of local keys.
        num_initial: Size of the initial part (l_I).
        num_local: Size of the local part (l_L).
        num_splits: Programs that share the keys of a head; :func:`decode_splits` by default.
        out: Written and returned if given.
        finished: Zeros ``(B, K)`` int32, which are counted up: the program that ends last merges all shares, and the
            step is one launch. Without them it is two.

    Returns:
        Output ``(B, H, D)`` in the type of the queries, and the log of the sum of exponentials ``(B, H)`` (natural log,
        float32, or float64 for float64 keys). Rows without any token have output 0 and minus infinity.

    Raises:
        UserError: If shapes, types or devices are wrong, or Triton cannot run here.
    """
    require(
        query_far.ndim == 3 and query_local.ndim == 3,
        f"query_far and query_local must have the shape (B, H, D), got {tuple(query_far.shape)} and "
        f"{tuple(query_local.shape)}",
    )
    batch = query_far.shape[0]
    shapes = attention_shapes(
        *(query_far[:, :, None], query_local[:, :, None], kv, selected, count, start, length, cos, sin),
        *(num_initial, num_local, (batch,)),
    )
    if num_splits is None:
        keys = num_initial + selected.shape[1] + num_local
        num_splits = decode_splits(batch, shapes.kv_heads, keys, _processors(kv.device))
    check_integers(1, num_splits=num_splits)
    out = output(out, (batch, shapes.heads, shapes.dim), query_far)

    constants = dot_constants(kv.dtype)
    sizes = shapes.constants()
    wide = torch.float64 if kv.dtype == torch.float64 else torch.float32
    parts = torch.empty(batch, shapes.heads, num_splits, shapes.dim, dtype=wide, device=kv.device)
    top = torch.empty(batch, shapes.heads, num_splits, dtype=wide, device=kv.device)
    total = torch.empty_like(top)
    lse = torch.empty(batch, shapes.heads, dtype=wide, device=kv.device)
    written = widened(out)
    query_far, query_local, kv = widened(query_far), widened(query_local), widened(kv)
    cos, sin = widened(cos), widened(sin)
    code = kernels(__package__, "attend_kernel")
    launch(
        code.decode_attention_kernel,
        (num_splits, shapes.kv_heads, batch),
        *(query_far, query_local, kv, selected, count, start, length, cos, sin, parts, top, total),
        *(None if finished is None else written, lse, finished),
        *(*query_far.stride()[:2], *query_local.stride()[:2], *kv.stride()[:4], selected.stride(0)),
        *(*written.stride()[:2], 0 if finished is None else finished.stride(0)),
        *(0 if length.numel() == 1 else 1, cos.stride(0), num_initial, num_local),
        *(scale_far * _LOG2_E, scale_local * _LOG2_E),
        GROUP=shapes.group,
        ROWS=power_of_two(shapes.group, 16),
        SPLITS=power_of_two(num_splits),
        **_tile(sizes["DIM_PADDED"], tensor_cores(constants, kv.dtype)),
        **sizes,
        **constants,
    )
    if finished is not None:
        return (out if written is out else out.copy_(written)), lse
    launch(
        code.merge_kernel,
        (shapes.heads, batch),
        *(parts, top, total, written, lse, *written.stride()[:2], num_splits),
        DIM=shapes.dim,
        DIM_PADDED=sizes["DIM_PADDED"],
        SPLITS=power_of_two(num_splits),
        warps=min(max(power_of_two(num_splits) * sizes["DIM_PADDED"] // 2048, 1), 16),  # 64 numbers a thread
    )
    return (out if written is out else out.copy_(written)), lse
