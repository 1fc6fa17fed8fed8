"""Full attention over a cached layer, as the model itself would compute it: the step of short sequences.

Below the length at which choosing pays (``dense_until``), and under ``method="full"``. Rotation, masks and the call of
the kernel are the stock model's, so that nothing differs in a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor

from esa_attention.attention.cache.layer import ESALayer

__all__ = ["FullAttention", "attend_dense", "dense_tokens", "sdpa"]

# (query (B, H, T, D), rotated keys (B, K, S, D), values, mask or None, scaling) -> (B, H, T, D).
# The mask is true where a query (B or 1, 1, T, S) sees a key; without one attention is causal from the first key on.
FullAttention = Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]

_MASK = 2**27  # numbers of a mask that is made at once


def sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """Full attention as transformers asks torch for it, whose layout and kernel it thereby takes."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    module: torch.nn.Module = SimpleNamespace(  # type: ignore[assignment]  # what it reads of a layer
        num_key_value_groups=query.shape[1] // key.shape[1], is_causal=True
    )
    return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling)[0].transpose(1, 2)


def dense_tokens(layer: ESALayer, new: int, starts: Sequence[int] | None) -> list[int]:
    """How many of the ``new`` last tokens of each row attend to everything before them (padding among them included).

    Whole chunks do, as long as no token of theirs sees more than ``dense_until``: the chunks after them are cut where
    they would be cut without.

    Args:
        layer: The cache, with these tokens.
        new: How many tokens a step has.
        starts: First real token of every row.
    """
    rows = [0] * layer.batch if starts is None else starts
    if layer.config.method == "full":
        return [new] * len(rows)
    limit, size, total = layer.dense_until, layer.config.step_size, layer.get_seq_length()
    if limit == 0:
        return [0] * len(rows)
    found = []
    for start in rows:
        first = max(start, total - new)
        whole = max(0, limit + start - first) // size * size
        found.append(new if total - start <= limit else whole and first - (total - new) + whole)
    return found


def attend_dense(
    layer: ESALayer,
    query: Tensor,
    scaling: float,
    starts: Sequence[int] | None,
    *,
    end: int,
    rows: slice = slice(None),
    full: FullAttention = sdpa,
) -> Tensor:
    """Full attention of the ``T`` tokens before ``end``.

    Args:
        layer: The cache.
        query: Unrotated queries of some rows ``(B, H, T, D)``.
        scaling: Factor on attention scores.
        starts: First real token of every row of the cache.
        end: One past the last token that queries.
        rows: Which rows of the cache the queries are of.
        full: What computes it.

    Returns:
        ``(B, H, T, D)``; 0 for padding.
    """
    assert layer.store is not None
    new = query.shape[2]
    begin = end - new
    together = max(1, _MASK // end)
    if begin and new > together:
        pieces = [(low, min(low + together, new)) for low in range(0, new, together)]
        return torch.cat(
            [
                attend_dense(layer, query[:, :, i:j], scaling, starts, end=begin + j, rows=rows, full=full)
                for i, j in pieces
            ],
            dim=2,
        )
    keys, values = layer.dense().read(layer.store.data, end, starts)
    own = None if starts is None else list(starts[rows])
    turned = layer.tables.rotate_as_the_model(query, begin, own)
    out = full(turned, keys[rows], values[rows], _mask(own, begin, end, query.device), scaling)
    for row, start in enumerate(own or []):
        out[row, :, : max(0, start - begin)] = 0.0
    return out


def _mask(starts: Sequence[int] | None, begin: int, end: int, device: torch.device) -> Tensor | None:
    """Who sees whom, where it is not plainly causal among the tokens themselves."""
    if starts is None and (begin == 0 or end - begin == 1):
        return None
    key = torch.arange(end, device=device)
    seen = key <= torch.arange(begin, end, device=device)[:, None]
    if starts is None:
        return seen[None, None]
    return (seen & (key >= torch.tensor(starts, device=device)[:, None, None]))[:, None]
