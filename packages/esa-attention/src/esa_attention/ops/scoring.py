"""Scores of middle tokens for a chunk of queries, in torch (section 7 of the fact sheet, CPU).

Those of one query are products of their own, see :mod:`~esa_attention.ops.index_products`.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["chunk_scores"]

# Numbers in one tile of scores: 16 MiB of float32, which stays near the caches.
_TILE = 4 * 2**20
# Tiles are kept for the second pass up to this many numbers (128 MiB), recomputed beyond.
_KEEP = 32 * 2**20


def _tiles(num_queries: int, num_keys: int) -> list[tuple[int, int]]:
    width = max(256, _TILE // max(num_queries, 1))
    return [(low, min(low + width, num_keys)) for low in range(0, num_keys, width)]


def chunk_scores(query_index: Tensor, key_index: Tensor, block: int) -> Tensor:
    """Eq. 4 for every block of queries, in tiles: no matrix of all queries by all keys exists.

    Args:
        query_index: Compressed queries of the chunk ``(T, R)``.
        key_index: Compressed keys ``(M, R)``, ``M`` at least 1.
        block: Queries that choose together.

    Returns:
        ``(ceil(T / block), M)``.
    """
    num_queries, num_keys = query_index.shape[0], key_index.shape[0]
    dtype = torch.promote_types(key_index.dtype, torch.float32)
    query_index = query_index.to(dtype)
    tiles = _tiles(num_queries, num_keys)
    keep = num_queries * num_keys <= _KEEP
    kept: list[Tensor] = []
    best = torch.full((num_queries, 1), -torch.inf, dtype=dtype, device=query_index.device)
    for low, high in tiles:
        scores = query_index @ key_index[low:high].to(dtype).T
        best = torch.maximum(best, scores.amax(dim=1, keepdim=True))
        if keep:
            kept.append(scores)
    blocks = [(low, min(low + block, num_queries)) for low in range(0, num_queries, block)]
    out = torch.empty(len(blocks), num_keys, dtype=dtype, device=query_index.device)
    for number, (low, high) in enumerate(tiles):
        scores = kept[number] if keep else query_index @ key_index[low:high].to(dtype).T
        scores = scores.sub_(best)
        for i, (first, last) in enumerate(blocks):
            torch.amax(scores[first:last], dim=0, out=out[i, low:high])
    return out
