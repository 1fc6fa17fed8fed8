"""Scores of middle tokens and the choice among them, in torch and numpy (section 7 of the fact sheet, CPU).

What was measured there and here decided the operators: a matrix-vector product over float32 rows, an 8-bit product with
the query in two 8-bit digits, and numpy's partition, which is several times faster than ``torch.topk`` on a CPU.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from esa_attention.ops.selection_torch import dilate, select_topk

__all__ = ["chunk_scores", "decode_scores", "decode_scores_int8", "select"]

# oneDNN compiles a kernel for every shape it has not seen, which takes longer than many a product: while a sequence
# grows token by token, it is given whole multiples of this.
_WHOLE = 1024
# Numbers in one tile of scores: 16 MiB of float32, which stays near the caches.
_TILE = 4 * 2**20
# Tiles are kept for the second pass up to this many numbers (128 MiB), recomputed beyond.
_KEEP = 32 * 2**20


@functools.cache
def _onednn_works(dtype: torch.dtype) -> bool:
    """Whether torch's private oneDNN product is there and gives what we think it does."""
    rows, vector = torch.arange(12.0).view(4, 3).to(dtype), torch.tensor([1.0, -2.0, 0.5], dtype=dtype)
    try:
        out = torch.ops.mkldnn._linear_pointwise(vector[None], rows, None, "none", [], "")
        return tuple(out.shape) == (1, 4) and bool(torch.allclose(out[0], torch.mv(rows, vector)))
    except (RuntimeError, AttributeError, TypeError, NotImplementedError):
        return False


def decode_scores(query_index: Tensor, key_index: Tensor) -> Tensor:
    """Scores of one query, ``(M,)``: without the subtraction of Eq. 4, which would not change their order.

    The keys are read once and nothing else matters. ``torch.mv`` reads a long float32 index at 10 GB/s where the memory
    gives 50; oneDNN's product of the same rows with one column reads it at 40. Rows that are not dense (exact scores,
    whose index is the cache itself) go through a batched product in two halves, one for each of a few cores.

    Args:
        query_index: ``(R,)``.
        key_index: ``(M, R)``, rows may be strided.

    Returns:
        At least float32.
    """
    vector = query_index.to(key_index.dtype)
    count, width = key_index.shape
    if key_index.device.type != "cpu" or key_index.dtype not in (torch.float32, torch.bfloat16) or count < 1024:
        return torch.mv(key_index, vector).to(torch.promote_types(key_index.dtype, torch.float32))
    if key_index.dtype == torch.bfloat16:
        return torch.mv(key_index, vector).float()
    if key_index.is_contiguous() and _onednn_works(key_index.dtype):
        whole = count - count % _WHOLE
        scores = key_index.new_empty(count)
        if whole:
            scores[:whole] = torch.ops.mkldnn._linear_pointwise(vector[None], key_index[:whole], None, "none", [], "")[
                0
            ]
        torch.mv(key_index[whole:], vector, out=scores[whole:])
        return scores
    half = count // 2
    rows = key_index[: 2 * half].unflatten(0, (2, half))
    scores = torch.bmm(vector.expand(2, 1, width), rows.transpose(1, 2)).flatten()
    return scores if count == 2 * half else torch.cat((scores, torch.mv(key_index[2 * half :], vector)))


def decode_scores_int8(query_index: Tensor, keys: Tensor, scale: Tensor) -> Tensor:
    """Scores of one query against 8-bit keys.

    The query is written with two 8-bit digits (15 bits in all), so that only the keys are rounded; integer products
    with each give exact sums. (One product with both would be slower: a single row is a case of its own in oneDNN.)

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
    sums = torch.add(_int_product(keys, high), _int_product(keys, low), alpha=1 / 254)
    return sums.mul_(scale).mul_(step)


def _int_product(keys: Tensor, digits: Tensor) -> Tensor:
    """``keys @ digits`` of int8 rows ``(M, R)`` and whole numbers ``(R,)``, exact, as float32."""
    whole = keys.shape[0] - keys.shape[0] % _WHOLE
    if not whole or keys.device.type != "cpu" or not keys.is_contiguous() or not hasattr(torch, "_int_mm"):
        return torch.cat([block.float() @ digits for block in keys.split(65536)])
    product = torch._int_mm(digits.to(torch.int8)[None], keys[:whole].T)[0].float()
    return torch.cat((product, keys[whole:].float() @ digits))


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
    """The ``k`` best tokens by dilated score, own score and lower index; see ``select_topk``.

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
