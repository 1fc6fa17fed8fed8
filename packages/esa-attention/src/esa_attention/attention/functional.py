"""The steps of ESA as functions without state (section 3 of the paper), in plain torch, differentiable by nobody.

Shapes: ``B`` batch, ``H`` query heads, ``K`` key-value heads, ``T`` tokens of the chunk, ``S`` tokens in all, ``M``
middle tokens, ``D`` head dimension, ``R`` compressed dimension. Fast paths of the same steps are in
:mod:`esa_attention.ops`; the naive specification of a whole step is :func:`esa_attention.reference.esa_reference`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from effkit.errors import UserError

if TYPE_CHECKING:
    from esa_attention.attention.rope import RopeTables
    from esa_attention.compression.compressor import QKCompressor
    from esa_attention.config import ESAConfig

__all__ = [
    "attention_states",
    "dilate",
    "esa_decode",
    "esa_prefill",
    "fold_keys",
    "fold_queries",
    "gather_kv",
    "importance_score",
    "merge_attention_states",
    "select_topk",
]


def fold_queries(query: Tensor, num_kv_heads: int) -> Tensor:
    r"""Sum the queries of each group of heads that share keys.

    The importance score sums over all heads (Eq. 3). With grouped keys the sum over the heads of a group can be taken
    first: :math:`\sum_h q_h \cdot k_{g(h)} = \sum_g (\sum_{h \in g} q_h) \cdot k_g`, exactly. Query head ``h`` belongs
    to key-value head ``h // (H / K)``.

    Args:
        query: ``(B, H, T, D)``.
        num_kv_heads: ``K``; must divide ``H``.

    Returns:
        ``(B, T, K * D)``, key-value heads outermost.

    Raises:
        UserError: If ``K`` does not divide ``H``.

    Example:
        >>> fold_queries(torch.ones(1, 8, 5, 4), num_kv_heads=2)[0, 0]
        tensor([4., 4., 4., 4., 4., 4., 4., 4.])
    """
    batch, heads, tokens, dim = query.shape
    if num_kv_heads < 1 or heads % num_kv_heads:
        raise UserError(f"num_kv_heads must divide the {heads} query heads, got {num_kv_heads}")
    grouped = query.reshape(batch, num_kv_heads, heads // num_kv_heads, tokens, dim).sum(dim=2)
    return grouped.transpose(1, 2).reshape(batch, tokens, num_kv_heads * dim)


def fold_keys(key: Tensor) -> Tensor:
    """Keys ``(B, K, T, D)`` as rows ``(B, T, K * D)`` that a folded query can be multiplied with."""
    return key.transpose(1, 2).flatten(2)


def importance_score(query_index: Tensor, key_index: Tensor) -> Tensor:
    r"""Score of every middle token for a chunk (Eq. 4).

    :math:`F(m; C) = \max_{c \in C} [f(m; c) - \max_{m'} f(m'; c)]` with :math:`f = q' \cdot k'`. Always at most 0, and
    0
    for the best token of each query. For one query the subtraction does not change the order.

    Args:
        query_index: Compressed queries ``(..., T, R)``.
        key_index: Compressed keys of the middle tokens ``(..., M, R)``.

    Returns:
        Scores ``(..., M)``; empty for no middle token.
    """
    if key_index.shape[-2] == 0:
        return key_index.new_zeros(key_index.shape[:-1])
    scores = query_index @ key_index.transpose(-1, -2)
    return (scores - scores.amax(dim=-1, keepdim=True)).amax(dim=-2)


def dilate(scores: Tensor, proximity: int) -> Tensor:
    """Give every token the best score within ``proximity`` tokens of it (Eq. 8), never reaching outside the middle.

    Args:
        scores: Scores of all middle tokens in order, ``(..., M)``.
        proximity: Half-width of the window (eps); 0 changes nothing.

    Returns:
        ``(..., M)``.

    Raises:
        UserError: If ``proximity`` is negative.

    Example:
        >>> dilate(torch.tensor([0.0, 0.0, 9.0, 0.0, 1.0]), proximity=1)
        tensor([0., 9., 9., 9., 1.])
    """
    if proximity < 0:
        raise UserError(f"proximity must be at least 0, got {proximity}")
    if proximity == 0 or scores.shape[-1] < 2:
        return scores
    reach = min(proximity, scores.shape[-1] - 1)
    flat = scores.reshape(-1, 1, scores.shape[-1])
    return torch.nn.functional.max_pool1d(flat, 2 * reach + 1, stride=1, padding=reach).reshape(scores.shape)


def select_topk(scores: Tensor, k: int, own: Tensor | None = None) -> Tensor:
    """Pick the ``k`` best tokens in an order that leaves nothing to chance.

    Every query of a chunk makes one score exactly 0, and the max filter spreads it to its neighbours: ties are the
    rule. The order is: dilated score, then the token's own score, then the lower index. With ``k >= T`` the best token
    of every query is then always among them.

    Args:
        scores: Dilated scores ``(..., M)``.
        k: How many; all tokens if there are no more.
        own: Scores before dilation, ``(..., M)``; ``scores`` if not given.

    Returns:
        Indices ``(..., min(k, M))``, ascending.

    Raises:
        UserError: If ``k`` is less than 1.

    Example:
        >>> select_topk(torch.tensor([1.0, 1.0, 1.0, 0.0]), 2, own=torch.tensor([0.0, 1.0, 0.5, 0.0]))
        tensor([1, 2])
    """
    if k < 1:
        raise UserError(f"k must be at least 1, got {k}")
    if k >= scores.shape[-1]:
        return torch.arange(scores.shape[-1], device=scores.device).expand(scores.shape)
    own = scores if own is None else own
    by_own = own.argsort(dim=-1, descending=True, stable=True)
    by_both = scores.gather(-1, by_own).argsort(dim=-1, descending=True, stable=True)
    return by_own.gather(-1, by_both[..., :k]).sort(dim=-1).values


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
        # A part without keys may hold anything; 0 * NaN would spread it.
        torch.where(weight[..., None] > 0, weight[..., None] * out.to(weight.dtype), 0.0)
        for weight, out in zip(weights, outputs, strict=True)
    )
    assert isinstance(merged, Tensor)
    merged = merged / torch.where(total > 0, total, torch.ones_like(total))[..., None]
    return merged.to(outputs[0].dtype), top + total.log()


def esa_prefill(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    config: ESAConfig,
    tables: RopeTables,
    compressor: QKCompressor | None = None,
    *,
    scaling: float | None = None,
    start: Sequence[int] | None = None,
) -> Tensor:
    """Attention of the last ``T`` of ``S`` tokens as ESA computes it, chunk by chunk (section 3 of the paper).

    Args:
        query: Unrotated queries of the last ``T`` tokens, ``(B, H, T, D)``.
        key: Unrotated keys of all tokens, ``(B, K, S, D)``.
        value: Values of all tokens, ``(B, K, S, D)``.
        config: Sizes and options.
        tables: Rotary tables of the model.
        compressor: Maps of the layer; exact scores if not given.
        scaling: Factor on attention scores; ``D ** -0.5`` if not given.
        start: First real token of every row, where padding stands on the left.

    Returns:
        ``(B, H, T, D)``; 0 for padding.

    Raises:
        UserError: If shapes disagree.
    """
    from esa_attention.attention.engine.step import attend_stateless

    return attend_stateless(query, key, value, config, tables, compressor, scaling=scaling, start=start)


def esa_decode(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    config: ESAConfig,
    tables: RopeTables,
    compressor: QKCompressor | None = None,
    *,
    scaling: float | None = None,
    start: Sequence[int] | None = None,
) -> Tensor:
    """:func:`esa_prefill` for the one token of a decoding step: ``query`` is ``(B, H, 1, D)``.

    Raises:
        UserError: If shapes disagree, or the query has several tokens.
    """
    if query.ndim != 4 or query.shape[2] != 1:
        raise UserError(f"query must have the shape (B, H, 1, D), got {tuple(query.shape)}; use esa_prefill")
    return esa_prefill(query, key, value, config, tables, compressor, scaling=scaling, start=start)
