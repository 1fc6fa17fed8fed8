"""ESA spelled out in loops, in float64: the specification of every fast path (section 3.9 of the fact sheet).

One row, one chunk, one head, one query at a time; nothing is shared, reused or reordered. Nothing is borrowed from the
fast paths either: positions, segments, folding and maps are worked out here from plain tables and weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from esa_attention.config import ESAConfig

__all__ = ["Maps", "Tables", "esa_reference", "reference_choice"]


class Tables(Protocol):
    """Cosines and sines; see :class:`~esa_attention.attention.rope.RopeTables`."""

    rotary_dim: int
    attention_scaling: float

    def tables(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosines and sines ``(at least length, rotary_dim)``."""
        ...


class Maps(Protocol):
    """Weights and biases of a layer; see :class:`~esa_attention.compression.qk_compressor.QKCompressor`."""

    @property
    def query_weight(self) -> Tensor | None:
        """``(R, K * D)`` on queries summed by group, or ``(R, H * D)`` on all; ``None`` for exact scores."""
        ...

    @property
    def key_weight(self) -> Tensor | None:
        """``(R, K * D)`` on keys."""
        ...

    @property
    def query_bias(self) -> Tensor | None:
        """``(R,)`` or ``None``."""
        ...

    @property
    def key_bias(self) -> Tensor | None:
        """``(R,)`` or ``None``."""
        ...


def _rotated(vector: Tensor, position: int, tables: Tables) -> Tensor:
    """A vector ``(D,)`` at a position: each rotated dimension turns with the one half of them away, the rest pass."""
    cos, sin = (table[position].to(vector.dtype) for table in tables.tables(position + 1, vector.device))
    turned, rest = vector[: tables.rotary_dim], vector[tables.rotary_dim :]
    first, second = turned.chunk(2)
    # Product and sum in one rounding, as the engine's: what differs must be the method, not the last digit.
    return torch.cat((torch.addcmul(turned * cos, torch.cat((-second, first)), sin), rest))


def _far(query: Tensor, position: int, tables: Tables) -> Tensor:
    """A query ``(D,)`` for keys that stay as they are: the factor that position 0 would give them is put on it."""
    turned = _rotated(query, position, tables)
    turned[: tables.rotary_dim] *= tables.attention_scaling
    return turned


def _mapped(vector: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if weight.shape[1] != len(vector):
        raise ValueError(f"compressor maps {weight.shape[1]} numbers, the heads of a token have {len(vector)}")
    mapped = weight.double() @ vector
    return mapped if bias is None else mapped + bias.double()


def _scores(queries: list[list[Tensor]], keys: list[list[Tensor]], maps: Maps | None) -> list[list[float]]:
    """``f(m; c)`` (Eq. 3) for queries ``[c][h]`` and keys ``[m][g]``."""
    group = len(queries[0]) // len(keys[0]) if keys else 1
    if maps is None or maps.query_weight is None or maps.key_weight is None:
        return [[sum(float(q[h] @ k[h // group]) for h in range(len(q))) for k in keys] for q in queries]
    all_heads = maps.query_weight.shape[1] != maps.key_weight.shape[1]
    q_index, k_index = [], []
    for q in queries:
        folded = [torch.stack(q[low : low + group]).sum(dim=0) for low in range(0, len(q), group)]
        q_index.append(_mapped(torch.cat(q if all_heads else folded), maps.query_weight, maps.query_bias))
    for k in keys:
        k_index.append(_mapped(torch.cat(k), maps.key_weight, maps.key_bias))
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
    tables: Tables,
    compressor: Maps | None = None,
    *,
    scaling: float | None = None,
    start: Sequence[int] | None = None,
    choices: list[list[int]] | None = None,
) -> Tensor:
    """What :func:`esa_attention.attention.engine.stateless.esa_prefill` computes, naively.

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
            end = min(current + config.step_size, total)
            # The local tokens are the last before the chunk, the initial ones the first of the others.
            local = current - min(config.num_local, current - first)
            initial_end = first + min(config.num_initial, local - first)
            middle = list(range(initial_end, local))
            for low in range(current, end, config.choosing_block):
                block = list(range(low, min(low + config.choosing_block, end)))
                far_q = {c: [_far(x, config.w, tables) for x in q[b, :, c - total + num_new]] for c in block}
                chosen = middle
                if len(middle) > config.num_selected:
                    queries = [far_q[c] for c in block]
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
                far = list(range(first, initial_end)) + chosen
                for c in block:
                    for h in range(num_heads):
                        g, t = h // group, c - total + num_new
                        near_q = _rotated(q[b, h, t], c - local, tables)
                        terms: list[tuple[float, Tensor]] = []
                        for j in far:
                            terms.append((float(far_q[c][h] @ k[b, g, j]) * scaling, v[b, g, j]))
                        for j in range(local, c + 1):
                            near_k = _rotated(k[b, g, j], j - local, tables)
                            terms.append((float(near_q @ near_k) * scaling, v[b, g, j]))
                        top = max(score for score, _ in terms)
                        weights = [math.exp(score - top) for score, _ in terms]
                        total_weight = sum(weights)
                        for weight, (_, row) in zip(weights, terms, strict=True):
                            out[b, h, t] += weight / total_weight * row
            current = end
    return out
