"""What is scored and chosen (Eqs. 4 and 8 of the paper), in a few lines of plain torch.

Every device and type; the faster ways to the same choice are in :mod:`~esa_attention.ops.scoring` and the kernels.

Shapes: ``T`` tokens of a chunk, ``M`` middle tokens, ``R`` compressed dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effkit.errors import UserError

__all__ = ["dilate", "importance_score", "select_topk"]


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
