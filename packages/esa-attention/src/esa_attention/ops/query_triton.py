"""What a step needs of its queries (sections 3.5 and 3.8 of the fact sheet), in one Triton kernel."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from effkit.triton import check_tensors, dot_constants, kernels, launch, power_of_two, widened
from esa_attention.ops.attend_shapes_triton import AttentionShapes, check_tables
from esa_attention.ops.checks import check_integers, check_lengths, require

__all__ = ["StepQueries", "step_queries"]

_TOKENS = 16


class StepQueries(NamedTuple):
    """Queries of a step.

    Attributes:
        far: Rotated to the far position, ``(B, H, T, D)``.
        local: Rotated to their places in the window, ``(B, H, T, D)``.
        folded: Sums of ``far`` over the heads of each group before rounding, ``(B, T, K * D)`` float32 (float64 for
            float64 queries): what the compressor of a layer multiplies.
    """

    far: Tensor
    local: Tensor
    folded: Tensor


def step_queries(
    query: Tensor,
    cos: Tensor,
    sin: Tensor,
    start: Tensor,
    length: Tensor,
    *,
    num_kv_heads: int,
    num_local: int,
    far_position: int,
    far_factor: float = 1.0,
) -> StepQueries:
    """Rotate the queries of a chunk to both positions they attend from, and fold them.

    Places in the window (the number of local tokens, for a decoding step) follow from the lengths on the device.

    Args:
        query: Unrotated queries ``(B, H, T, D)``.
        cos: Cosines ``(positions, rotary_dim / 2)``, at least ``num_local + T`` of them, the far position among them.
        sin: The same for sines.
        start: First real token of every row ``(B,)``, int32 or int64.
        length: Number of tokens in all, the chunk included, ``(1,)`` or ``(B,)``.
        num_kv_heads: Key-value heads (K); must divide ``H``.
        num_local: Size of the local part (l_L).
        far_position: Position that all far attention is made from (w).
        far_factor: Factor on the rotated dimensions of far queries, for models whose tables are scaled: far keys stay
            unrotated, where position 0 would have scaled them.

    Returns:
        The queries; rows of padding hold something finite.

    Raises:
        UserError: If shapes, types or devices are wrong, or Triton cannot run here.
    """
    require(
        query.ndim == 4 and query.is_floating_point() and query.stride(3) == 1,
        f"query must be floating point of shape (B, H, T, D), contiguous in its last dimension, "
        f"got {query.dtype} of shape {tuple(query.shape)}",
    )
    batch, heads, tokens, dim = query.shape
    check_integers(0, far_position=far_position)
    check_integers(1, num_local=num_local, num_kv_heads=num_kv_heads)
    require(heads % num_kv_heads == 0, f"num_kv_heads must divide the {heads} query heads, got {num_kv_heads}")
    check_tables(cos, sin, dim, max(num_local + tokens, far_position + 1))
    check_lengths(start, length, batch)
    check_tensors(query=query, cos=cos, sin=sin, start=start, length=length)

    shapes = AttentionShapes(batch, heads, num_kv_heads, tokens, dim, cos.shape[1])
    sizes, constants = shapes.constants(), dot_constants(query.dtype)
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    folded = torch.empty(batch, tokens, num_kv_heads * dim, dtype=wide, device=query.device)
    far = torch.empty(batch, heads, tokens, dim, dtype=query.dtype, device=query.device)
    local = torch.empty_like(far)
    written_far, written_local = widened(far), widened(local)
    source, cos, sin = widened(query), widened(cos), widened(sin)
    arguments: tuple[Any, ...] = (source, written_far, written_local, folded, start, length, cos, sin)
    tile = min(power_of_two(tokens), _TOKENS)
    launch(
        kernels(__package__, "query_kernel").query_kernel,
        (-(-tokens // tile), num_kv_heads, batch),
        *arguments,
        *(*source.stride()[:3], *written_far.stride()[:3], *written_local.stride()[:3], *folded.stride()[:2]),
        *(0 if length.numel() == 1 else 1, cos.stride(0), tokens, num_local, far_position, far_factor),
        GROUP=shapes.group,
        TOKENS=tile,
        **{key: sizes[key] for key in ("DIM", "HALF", "HALF_PADDED", "REST_PADDED")},
        **{key: constants[key] for key in ("DOT", "ACC", "EMULATE_BF16")},
    )
    return StepQueries(written_far.to(query.dtype), written_local.to(query.dtype), folded)
