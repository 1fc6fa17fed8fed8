"""ESA spelled out in loops, in float64: the specification of every fast path (section 3.9 of the fact sheet).

One row, one chunk, one head, one query at a time; nothing is shared, reused or reordered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from esa_attention.attention.segments import segments

if TYPE_CHECKING:
    from esa_attention.attention.rope import RopeTables
    from esa_attention.compression.compressor import QKCompressor
    from esa_attention.config import ESAConfig

__all__ = ["esa_reference", "reference_choice"]


def _scores(
    queries: list[list[Tensor]], keys: list[list[Tensor]], compressor: QKCompressor | None
) -> list[list[float]]:
    """``f(m; c)`` (Eq. 3) for queries ``[c][h]`` and keys ``[m][g]``."""
    if compressor is None or compressor.is_exact:
        group = len(queries[0]) // len(keys[0]) if keys else 1
        return [[sum(float(q[h] @ k[h // group]) for h in range(len(q))) for k in keys] for q in queries]
    wide = compressor.to(dtype=torch.float64)
    q_index = [wide.compress_query(torch.stack(q)[None, :, None])[0, 0] for q in queries]
    k_index = [wide.compress_key(torch.stack(k)[None, :, None])[0, 0] for k in keys]
    return [[float(q @ k) for k in k_index] for q in q_index]


def _chunk_scores(f: list[list[float]]) -> list[float]:
    """``F(m; C)`` (Eq. 4)."""
    return [max(row[m] - max(row) for row in f) for m in range(len(f[0]))]


def _dilated(own: list[float], proximity: int) -> list[float]:
    """Eq. 8."""
    return [max(own[max(0, j - proximity) : j + proximity + 1]) for j in range(len(own))]


def reference_choice(own: list[float], proximity: int, k: int) -> list[int]:
    """The ``k`` best of a list: by dilated score, then own score, then lower index; ascending.

    Args:
        own: Scores of all middle tokens.
        proximity: Half-width of the max filter.
        k: How many.
    """
    dilated = _dilated(own, proximity)
    order = sorted(range(len(own)), key=lambda j: (-dilated[j], -own[j], j))
    return sorted(order[:k])


def _reranked(candidates: list[int], exact: list[float], proximity: int, k: int) -> list[int]:
    """The ``k`` best candidates by exact score; the max filter sees candidates only."""
    dilated = [
        max(e for c, e in zip(candidates, exact, strict=True) if abs(c - candidate) <= proximity)
        for candidate in candidates
    ]
    order = sorted(range(len(candidates)), key=lambda i: (-dilated[i], -exact[i], candidates[i]))
    return sorted(candidates[i] for i in order[:k])


def esa_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    config: ESAConfig,
    tables: RopeTables,
    compressor: QKCompressor | None = None,
    *,
    scaling: float | None = None,
    start: Sequence[int] | None = None,
    choices: list[list[int]] | None = None,
) -> Tensor:
    """What :func:`esa_attention.attention.functional.esa_prefill` computes, naively.

    Selections ``paper``, ``strict_causal`` and ``rerank``; ``reuse`` depends on earlier calls and is ``paper`` here.

    Args:
        query: Unrotated queries of the last ``T`` tokens, ``(B, H, T, D)``.
        key: Unrotated keys of all tokens, ``(B, K, S, D)``.
        value: Values of all tokens, ``(B, K, S, D)``.
        config: Sizes and options; ``method="esa"``.
        tables: Rotary tables.
        compressor: Maps of the layer; exact scores if not given.
        scaling: Factor on attention scores; ``D ** -0.5`` if not given.
        start: First real token of every row.
        choices: Gets the selected tokens (absolute, ascending) of every row, chunk and block in turn.

    Returns:
        ``(B, H, T, D)`` in float64.
    """
    batch, num_heads, num_new, dim = query.shape
    total, group = key.shape[2], num_heads // key.shape[1]
    scaling = dim**-0.5 if scaling is None else scaling
    q, k, v = query.double(), key.double(), value.double()
    out = torch.zeros_like(q)
    for b in range(batch):
        first = 0 if start is None else int(start[b])
        current = max(first, total - num_new)
        while current < total:
            cut = segments(
                current, min(current + config.chunk_size, total), config.num_initial, config.num_local, first
            )
            middle = list(range(cut.initial_end, cut.local))
            for low in range(cut.current, cut.end, config.choosing_block):
                block = list(range(low, min(low + config.choosing_block, cut.end)))
                far_q = {c: tables.rotate_far(q[b, :, c - total + num_new][:, None], config.w)[:, 0] for c in block}
                chosen = middle
                if len(middle) > config.num_selected:
                    queries = [list(far_q[c]) for c in block]
                    keys = [list(k[b, :, m]) for m in middle]
                    own = _chunk_scores(_scores(queries, keys, compressor))
                    if config.selection == "rerank":
                        many = config.rerank_factor * config.num_selected
                        picked = reference_choice(own, config.proximity, many)
                        exact = _chunk_scores(_scores(queries, [keys[i] for i in picked], None))
                        chosen = _reranked([middle[i] for i in picked], exact, config.proximity, config.num_selected)
                    else:
                        picked = reference_choice(own, config.proximity, config.num_selected)
                        chosen = [middle[i] for i in picked]
                if choices is not None:
                    choices.append(chosen)
                far = list(range(cut.start, cut.initial_end)) + chosen
                for c in block:
                    for h in range(num_heads):
                        g, t = h // group, c - total + num_new
                        near_q = tables.rotate(q[b, h, t][None], c - cut.local)[0]
                        terms: list[tuple[float, Tensor]] = []
                        for j in far:
                            terms.append((float(far_q[c][h] @ k[b, g, j]) * scaling, v[b, g, j]))
                        for j in range(cut.local, c + 1):
                            near_k = tables.rotate(k[b, g, j][None], j - cut.local)[0]
                            terms.append((float(near_q @ near_k) * scaling, v[b, g, j]))
                        top = max(score for score, _ in terms)
                        weights = [math.exp(score - top) for score, _ in terms]
                        total_weight = sum(weights)
                        for weight, (_, row) in zip(weights, terms, strict=True):
                            out[b, h, t] += weight / total_weight * row
            current = cut.end
    return out
