"""The decoding step of :mod:`esa_attention.ops.decode_fixed` by kernels, which read their lengths from the device.

Six launches: what comes before scoring, scores with max filter and first histogram, three of the selection, attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from esa_attention.ops.attend_triton import decode_attention
from esa_attention.ops.decode_fixed import Sizes
from esa_attention.ops.prepare_triton import prepare_step
from esa_attention.ops.score_triton import decode_scores
from esa_attention.ops.select_triton import select, select_scratch

__all__ = ["decode_fixed_triton"]


def decode_fixed_triton(
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
    sizes: Sizes,
) -> Tensor:
    """Append one token and attend with it; arguments as in ``decode_step``.

    Returns:
        ``(B, H, 1, D)``.
    """
    batch, capacity, _, kv_heads, _ = store.shape
    scratch = select_scratch(batch, capacity, query.device, more=kv_heads)
    prepared = prepare_step(
        *(query, key, value, store, index, index_scale, query_map, key_map, query_bias, key_bias),
        *(start, length, cos, sin),
        num_local=sizes.num_local,
        far_position=sizes.far_position,
        far_factor=sizes.far_factor,
        zeroed=scratch.zeroed,
    )
    keys = store[:, :, 0].flatten(2) if index is None else index
    own, dilated = torch.empty(2, batch, capacity, device=query.device)
    parts: dict[str, Any] = {"num_initial": sizes.num_initial, "num_local": sizes.num_local}
    decode_scores(
        *(keys, index_scale, prepared.mapped.float(), start, length),
        **parts,
        proximity=sizes.proximity,
        own=own,
        dilated=dilated,
        num_selected=sizes.num_selected,
        scratch=scratch,
        empty=True,
    )
    selected, count = select(
        own, dilated, start, length, 1, sizes.num_selected, **parts, scratch=scratch, histogram="ready"
    )
    return decode_attention(
        *(prepared.far, prepared.local, store, selected, count, start, length, cos, sin),
        scale_far=sizes.scaling,
        scale_local=sizes.scaling,
        **parts,
        finished=scratch.more,
    )[0][:, :, None]
