"""Attention of one decoded token on a CPU: gathering, both parts and one softmax, at the memory's speed.

With one query a head there is nothing to compute, only keys and values to read. Three things were measured to matter
(fp32, two cores): batched matrix products, which read strided keys two to three times as fast as torch's flash kernel;
gathering a quarter of the tokens at a time, keys first and values later, so that the products find them in the nearest
cache (1.4 ms instead of 2.0 for 2,176 tokens); and one softmax over both parts, so that nothing has to be merged.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["PIECE", "attend_decode", "decode_runs"]

# Tokens gathered at a time: 2 MiB of keys of a layer with eight heads of 128 numbers.
PIECE = 544


def decode_runs(query: Tensor, store: Tensor) -> bool:
    """Whether a step is one for :func:`attend_decode`.

    Args:
        query: ``(H, T, D)``.
        store: Keys and values of a sequence, ``(capacity, 2, K, D)``.
    """
    # Half precision needs its scores in float32, which a product of two half precision matrices does not give.
    wide = query.dtype in (torch.float32, torch.float64)
    return wide and query.shape[1] == 1 and query.device.type == store.device.type == "cpu"


def attend_decode(
    far_query: Tensor,
    store: Tensor,
    far: Tensor,
    near_query: Tensor,
    near_keys: Tensor,
    near_values: Tensor,
    scaling: float,
    piece: Tensor,
) -> Tensor:
    """Attention of one token over far tokens, which lie scattered, and near ones, under one softmax.

    Args:
        far_query: Query at the far position ``(H, 1, D)``.
        store: Unrotated keys and values ``(capacity, 2, K, D)``, contiguous.
        far: Indices of the far tokens ``(N,)``, at least one.
        near_query: Query at its own position ``(H, 1, D)``.
        near_keys: Rotated keys ``(K, L, D)``.
        near_values: Their values ``(K, L, D)``.
        scaling: Factor on the scores.
        piece: Scratch ``(at least 544, K, D)`` in the type of the store.

    Returns:
        ``(H, 1, D)``.
    """
    kv_heads, _, dim = near_keys.shape
    rows = (kv_heads, far_query.shape[0] // kv_heads, dim)
    # Keys and values of a token are two neighbouring rows.
    flat, even = store.view(-1, kv_heads * dim), 2 * far
    parts = even.split(-(-even.shape[0] // -(-even.shape[0] // PIECE)))

    def gathered(indices: Tensor) -> Tensor:
        held = piece[: indices.shape[0]]
        torch.index_select(flat, 0, indices, out=held.view(-1, kv_heads * dim))
        return held.transpose(0, 1)

    scaled = (far_query * scaling).view(rows)
    scores = [torch.bmm(scaled, gathered(part).transpose(1, 2)) for part in parts]
    # The other way round is faster for keys that lie together; the copy into one row of scores is due anyway.
    scores.append(torch.bmm(near_keys, (near_query * scaling).view(rows).transpose(1, 2)).transpose(1, 2))
    weights = torch.cat(scores, dim=2).softmax(dim=2)
    out = torch.bmm(weights[:, :, far.shape[0] :], near_values)
    for weight, part in zip(weights[:, :, : far.shape[0]].split(parts[0].shape[0], dim=2), parts, strict=True):
        out += torch.bmm(weight, gathered(part + 1))
    return out.view(far_query.shape)
