"""Heads that share keys are summed before anything is scored: what the maps act on.

Shapes: ``B`` batch, ``H`` query heads, ``K`` key-value heads, ``T`` tokens, ``D`` head dimension.
"""

from __future__ import annotations

from torch import Tensor

from effkit.errors import UserError

__all__ = ["fold_keys", "fold_queries"]


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
        >>> import torch
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
