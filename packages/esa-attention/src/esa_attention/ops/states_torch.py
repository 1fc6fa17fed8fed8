"""Attention that returns its lse, and the merging of parts by it, in plain torch.

Shapes: ``B`` batch, ``H`` query heads, ``K`` key-value heads, ``T`` tokens of the chunk, ``S`` tokens in all, ``D``
dimension of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effkit.errors import UserError

__all__ = ["attention_states", "gather_kv", "merge_attention_states"]


def gather_kv(key: Tensor, value: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Take the keys and values of some tokens, the same for all heads.

    Args:
        key: ``(B, K, S, D)``.
        value: ``(B, K, S, D)``.
        indices: ``(B, N)`` or ``(N,)``.

    Returns:
        Keys and values ``(B, K, N, D)``.
    """
    if indices.ndim == 1:
        return key.index_select(2, indices), value.index_select(2, indices)
    wide = indices[:, None, :, None].expand(-1, key.shape[1], -1, key.shape[3])
    return key.gather(2, wide), value.gather(2, wide)


def attention_states(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Attention with the log of its normaliser, which is what merging needs.

    Args:
        query: ``(B, H, T, D)``.
        key: ``(B, K, N, D)``; ``K`` must divide ``H``.
        value: ``(B, K, N, D)``.
        scaling: Factor on the scores.
        causal: Query ``t`` sees keys up to ``N - T + t`` (lower-right alignment).

    Returns:
        Output ``(B, H, T, D)`` and lse ``(B, H, T)`` (natural log, at least float32). Rows that see no key have output
        0 and lse minus infinity.
    """
    batch, heads, tokens, _ = query.shape
    group = heads // key.shape[1]
    wide = torch.promote_types(query.dtype, torch.float32)
    grouped = query.reshape(batch, key.shape[1], group * tokens, -1).to(wide)
    scores = (grouped @ key.to(wide).transpose(-1, -2) * scaling).reshape(batch, heads, tokens, key.shape[2])
    if causal:
        past = key.shape[2] - tokens
        seen = torch.ones(tokens, key.shape[2], dtype=torch.bool, device=query.device).tril(past)
        scores = scores.masked_fill(~seen, -torch.inf)
    lse = scores.logsumexp(dim=-1)
    weights = (scores - torch.where(lse.isinf(), torch.zeros_like(lse), lse)[..., None]).exp()
    out = weights.reshape(batch, key.shape[1], group * tokens, -1) @ value.to(wide)
    return out.reshape(batch, heads, tokens, -1).to(query.dtype), lse


def merge_attention_states(outputs: Sequence[Tensor], lses: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Combine attention over disjoint sets of keys into attention over their union.

    ``out = sum_i softmax_i(lse_i) out_i``, with the largest lse subtracted first. (The paper's printed pseudo-code
    leaves that out, and overflows.)

    Args:
        outputs: Outputs ``(..., D)`` of the parts.
        lses: Their lse ``(...)``; minus infinity for a part without keys.

    Returns:
        Output ``(..., D)`` in the type of the first, and the lse of the union ``(...)``. Where no part has keys: 0 and
        minus infinity.

    Raises:
        UserError: If there is no part, or not one lse for each.
    """
    if not outputs or len(outputs) != len(lses):
        raise UserError(f"outputs and lses must be as many and at least one, got {len(outputs)} and {len(lses)}")
    stacked = torch.stack(list(lses))
    top = stacked.amax(dim=0)
    top = torch.where(top == -torch.inf, torch.zeros_like(top), top)
    weights = (stacked - top).exp()
    total = weights.sum(dim=0)
    merged = sum(
        # A part without keys may hold anything; 0 * NaN would spread it. A weight that is NaN does spread.
        torch.where(weight[..., None] != 0, weight[..., None] * out.to(weight.dtype), 0.0)
        for weight, out in zip(weights, outputs, strict=True)
    )
    assert isinstance(merged, Tensor)
    merged = merged / torch.where(total != 0, total, torch.ones_like(total))[..., None]
    return merged.to(outputs[0].dtype), top + total.log()
