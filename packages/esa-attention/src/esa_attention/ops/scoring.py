"""Scores of middle tokens and the choice among them, in torch and numpy (section 7 of the fact sheet, CPU).

What was measured there and here decided the operators: a matrix-vector product over float32 rows, an 8-bit product with
the query in two 8-bit digits, and numpy's partition, which is several times faster than ``torch.topk`` on a CPU.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from esa_attention.functional import dilate

__all__ = ["chunk_scores", "decode_scores", "decode_scores_int8", "select"]

# Numbers in one tile of scores: 16 MiB of float32, which stays near the caches.
_TILE = 4 * 2**20
# Tiles are kept for the second pass up to this many numbers (128 MiB), recomputed beyond.
_KEEP = 32 * 2**20


def decode_scores(query_index: Tensor, key_index: Tensor) -> Tensor:
    """Scores of one query, ``(M,)``: without the subtraction of Eq. 4, which would not change their order.

    Args:
        query_index: ``(R,)``.
        key_index: ``(M, R)``, rows may be strided.
    """
    return (
        torch.mv(key_index, query_index.to(key_index.dtype)).float()
        if key_index.dtype
        in (
            torch.float16,
            torch.bfloat16,
        )
        else torch.mv(key_index, query_index.to(key_index.dtype))
    )


def decode_scores_int8(query_index: Tensor, keys: Tensor, scale: Tensor) -> Tensor:
    """Scores of one query against 8-bit keys.

    The query is written with two 8-bit digits (15 bits in all), so that only the keys are rounded; one integer product
    with both gives exact sums.

    Args:
        query_index: ``(R,)``.
        keys: ``(M, R)`` int8.
        scale: ``(M,)`` float32.

    Returns:
        ``(M,)`` float32.
    """
    wide = query_index.float()
    largest = float(wide.abs().max())
    if largest == 0.0 or keys.shape[0] == 0:
        return torch.zeros(keys.shape[0], device=keys.device)
    step = largest / 127
    high = (wide / step).round()
    low = ((wide / step - high) * 254).round().clamp(-127, 127)
    digits = torch.stack((high, low), dim=1).to(torch.int8)
    sums = _int_product(keys, digits)
    return (sums[:, 0] + sums[:, 1] / 254) * (scale * step)


def _int_product(keys: Tensor, digits: Tensor) -> Tensor:
    """``keys @ digits`` of int8 matrices; int32, or float32 where torch has no such product."""
    if keys.device.type == "cpu" and hasattr(torch, "_int_mm"):
        return torch._int_mm(keys.contiguous(), digits)
    return torch.cat([block.float() @ digits.float() for block in keys.split(65536)])


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


def select(own: Tensor, proximity: int, k: int) -> Tensor:
    """The ``k`` best tokens by dilated score, own score and lower index; see ``functional.select_topk``.

    On a CPU by partition instead of sorting: linear in the number of tokens, whatever ties there are.

    Args:
        own: Scores of the middle tokens ``(M,)``, with ``M > k``.
        proximity: Half-width of the max filter.
        k: How many.

    Returns:
        Indices ``(k,)``, ascending.
    """
    dilated = dilate(own, proximity)
    if own.device.type != "cpu":
        from esa_attention.functional import select_topk

        return select_topk(dilated, k, own)
    d = dilated.numpy()
    chosen, ties, missing = _above(d, k)
    if missing < ties.size:
        among = own.numpy()[ties]
        surely, again, missing = _above(among, missing)
        surely[again[:missing]] = True  # the same own score too: the lower index
        ties = ties[surely]
    chosen[ties] = True
    return torch.from_numpy(np.flatnonzero(chosen))


def _above(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, int]:
    """A mask of what exceeds the k-th largest, the indices equal to it, and how many of those belong to the k."""
    threshold = np.partition(values, values.size - k)[values.size - k]
    mask = values > threshold
    return mask, np.flatnonzero(values == threshold), k - int(np.count_nonzero(mask))
