"""What scoring blocks before tokens would save: bytes of the index read, and what of the choice would be lost.

A block of tokens has a bound that no score in it exceeds. Blocks are taken by falling bound: until no other can hold
one of the best tokens (exact), or until half of the bytes are read (then some may be missed).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from effkit.errors import UserError, choose

__all__ = ["BOUNDS", "TwoLevels", "two_levels"]

Bound = Literal["min_max", "mean_radius"]
BOUNDS = ("min_max", "mean_radius")
_SCALE = 4  # bytes of the scale that eight-bit rows have, and of a radius


class TwoLevels(NamedTuple):
    """Scoring blocks first, against scoring all tokens; all in shares.

    Attributes:
        exact: Bytes read where the choice stays what it is.
        recall: Of the choice, where half of the bytes are read.
    """

    exact: float
    recall: float


def two_levels(query: Tensor, keys: Tensor, k: int, block: int, bound: str = "min_max") -> TwoLevels:
    """One query against an index in eight bits, whose blocks are summarised in eight bits.

    Bounds are of unrounded numbers; rounded ones can only be looser. There is no max filter: with one, neighbours of
    candidate blocks would have to be read as well.

    Args:
        query: ``(R,)``.
        keys: ``(M, R)``.
        k: Tokens that are chosen, fewer than ``M``.
        block: Tokens of a block; the last may be shorter.
        bound: ``min_max`` of every number, or ``mean_radius``: the mean and the greatest distance from it.

    Raises:
        UserError: If a size does not fit.
    """
    choose("bound", bound, BOUNDS)
    count, rank = keys.shape
    for name, value, most in (("k", k, count - 1), ("block", block, count)):
        if not 1 <= value <= most:
            raise UserError(f"{name} must be in 1..{most}, got {value}")
    scores = keys @ query
    numbers = torch.arange(count, device=keys.device) // block
    blocks = int(numbers[-1]) + 1
    padded = torch.cat((keys, keys[-1:].expand(blocks * block - count, -1))).view(blocks, block, rank)
    if bound == "min_max":
        low, high = padded.amin(dim=1), padded.amax(dim=1)
        most_possible = high @ query.clamp(min=0) + low @ query.clamp(max=0)
        summary = 2 * rank + _SCALE
    else:
        mean = padded.mean(dim=1)
        radius = (padded - mean[:, None]).norm(dim=2).amax(dim=1)
        most_possible = mean @ query + radius * query.norm()
        summary = rank + 2 * _SCALE
    order = most_possible.argsort(descending=True)
    rank_of = torch.empty_like(order)
    rank_of[order] = torch.arange(blocks, device=order.device)
    read_at = rank_of[numbers]  # after how many other blocks a token is read
    token, whole = rank + _SCALE, count * (rank + _SCALE)
    best = scores.topk(k).indices

    low_count, high_count = 1, blocks  # of blocks that have to be read for the choice to be certain
    while low_count < high_count:
        middle = (low_count + high_count) // 2
        seen = scores[read_at < middle]
        certain = seen.shape[0] >= k and seen.topk(k).values[-1] >= most_possible[order[middle]]
        low_count, high_count = (low_count, middle) if certain else (middle + 1, high_count)
    exact = (blocks * summary + int((read_at < low_count).sum()) * token) / whole
    affordable = max(0, int((0.5 * whole - blocks * summary) / (block * token)))
    return TwoLevels(exact, float((read_at[best] < affordable).float().mean()))
