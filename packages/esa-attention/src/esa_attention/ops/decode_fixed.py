"""A decoding step over the whole room of a cache, masked: nothing is sized by how many tokens there are.

Written with torch's operators, for every device and type. It reads all the room and sorts, so it is the plain path; the
same operators serve every length, which is what it is for (:mod:`esa_attention.attention.engine.step_fixed`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Sizes", "attend_fixed_torch"]


class Sizes(NamedTuple):
    """What of the configuration a step needs."""

    num_initial: int
    num_selected: int
    num_local: int
    proximity: int
    far_position: int
    far_factor: float
    scaling: float


def attend_fixed_torch(
    query: Tensor,
    store: Tensor,
    index: Tensor | None,
    index_scale: Tensor | None,
    query_map: Tensor | None,
    query_bias: Tensor | None,
    start: Tensor,
    length: Tensor,
    cos: Tensor,
    sin: Tensor,
    sizes: Sizes,
) -> Tensor:
    """Attention of the newest token of every row; arguments as in ``decode_step``, the token being in the store.

    Returns:
        ``(B, H, 1, D)`` in the type of the query.
    """
    batch, heads, _, dim = query.shape
    capacity, kv_heads = store.shape[1], store.shape[3]
    wide = torch.promote_types(query.dtype, torch.float32)
    new = length - 1
    local = torch.maximum(new - sizes.num_local, start)[:, None]  # (B, 1)
    initial_end = torch.minimum(start[:, None] + sizes.num_initial, local)
    cos, sin = cos.to(wide), sin.to(wide)
    fixed = torch.full((1,), sizes.far_position, device=query.device)
    token = query[:, :, 0].to(wide)
    far = _rotated(token, cos[fixed], sin[fixed], sizes.far_factor)
    place = (new - local)[:, 0]
    near = _rotated(token, cos[place][:, None], sin[place][:, None], 1.0)

    folded = far.to(query.dtype).to(wide)  # rounded as the query that the other paths keep
    if query_map is None or query_map.shape[1] == kv_heads * dim:
        folded = folded.view(batch, kv_heads, -1, dim).sum(dim=2)
    folded = folded.flatten(1)
    if query_map is not None:
        folded = torch.nn.functional.linear(folded.to(query_map.dtype), query_map, query_bias)
    chosen, meant = _chosen(folded, store, index, index_scale, initial_end, local, sizes)

    first = torch.arange(sizes.num_initial, device=query.device) + start[:, None]
    window = torch.arange(sizes.num_local + 1, device=query.device) + local
    tokens = torch.cat((first, chosen, window), dim=1).clamp(max=capacity - 1)
    seen = torch.cat((first < initial_end, meant, window <= new), dim=1) & (start[:, None] <= new)
    rows = torch.arange(batch, device=query.device)[:, None]
    keys, values = store[rows, tokens].to(wide).permute(2, 0, 3, 1, 4)  # (B, K, N, D) each
    # What is not meant may be memory that nobody has written yet.
    values = values.masked_fill(~seen[:, None, :, None], 0.0)
    far_count = sizes.num_initial + chosen.shape[1]
    steps = sizes.num_local + 1
    turned = _rotated(keys[:, :, far_count:], cos[:steps], sin[:steps], 1.0)
    groups = (batch, kv_heads, heads // kv_heads, dim)
    scores = torch.cat(
        (far.view(groups) @ keys[:, :, :far_count].transpose(2, 3), near.view(groups) @ turned.transpose(2, 3)), dim=3
    )
    weights = (scores * sizes.scaling).masked_fill(~seen[:, None, None], -torch.inf).softmax(dim=3)
    weights = weights.masked_fill(~seen[:, None, None], 0.0)  # a row of padding sees nothing, and gives 0
    return (weights @ values).view(batch, heads, 1, dim).to(query.dtype)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, factor: float) -> Tensor:
    """Rotate the first dimensions of ``(..., D)`` in pairs of halves, and multiply them by a factor."""
    half = cos.shape[-1]
    first, second = x[..., :half], x[..., half : 2 * half]
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return torch.cat((turned * factor, x[..., 2 * half :]), dim=-1)


def _chosen(
    query_index: Tensor,
    store: Tensor,
    index: Tensor | None,
    index_scale: Tensor | None,
    initial_end: Tensor,
    local: Tensor,
    sizes: Sizes,
) -> tuple[Tensor, Tensor]:
    """The best middle tokens in the order of ``select_topk``: indices ``(B, k)``, and which of them are meant."""
    keys = store[:, :, 0].flatten(2) if index is None else index
    wide = torch.promote_types(query_index.dtype, torch.float32)
    own = (keys.to(wide) @ query_index.to(wide)[:, :, None])[..., 0]
    if index_scale is not None:
        own = own * index_scale
    places = torch.arange(own.shape[1], device=own.device)
    middle = (places >= initial_end) & (places < local)
    own = own.masked_fill(~middle, -torch.inf)
    dilated = torch.nn.functional.max_pool1d(own[:, None], 2 * sizes.proximity + 1, 1, sizes.proximity)[:, 0]
    dilated = dilated.masked_fill(~middle, -torch.inf)
    by_own = own.argsort(dim=1, descending=True, stable=True)
    by_both = dilated.gather(1, by_own).argsort(dim=1, descending=True, stable=True)
    best = by_own.gather(1, by_both[:, : sizes.num_selected])
    meant = torch.arange(best.shape[1], device=own.device) < local - initial_end
    return best, meant
