"""The best network of a small grid, by looking at all of them: what a greedy search is measured against."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from effkit.errors import UserError
from greedy_enlarge.families import count_many
from greedy_enlarge.search.moves import Moves
from greedy_enlarge.search.schedule import check_delta
from greedy_enlarge.spec import ArchSpec

__all__ = ["Optimum", "all_within", "exhaustive"]

_MOST = 5_000_000  # networks of a grid


def all_within(
    spec: ArchSpec, budget: int, delta: float, values: Sequence[Sequence[int]], moves: Moves | None = None
) -> list[ArchSpec]:
    """Every network of a grid whose MACs are close to a budget.

    Args:
        spec: What the networks share.
        budget: MACs.
        delta: Largest allowed ``|MACs - budget| / budget``.
        values: Values of each coordinate, in the order depths, widths, resolution.
        moves: Its limits hold too.

    Raises:
        UserError: If the grid has more than five million networks, or values are missing.
    """
    check_delta("delta", delta)
    if len(values) != 2 * spec.stages + 1:
        raise UserError(f"values has {len(values)} coordinates, expected {2 * spec.stages + 1}")
    size = int(np.prod([len(v) for v in values], dtype=np.float64))
    if not 0 < size <= _MOST:
        raise UserError(f"the grid has {size:,} networks, between 1 and {_MOST:,} can be looked at")
    table = np.array(list(itertools.product(*values)), dtype=np.int64)
    s = spec.stages
    costs = count_many(spec, table[:, :s], table[:, s : 2 * s], table[:, 2 * s])
    found = [spec.with_coordinates(row) for row in table[np.abs(costs - budget) <= delta * budget]]
    limits = moves.limits if moves else ()
    return [net for net in found if all(limit.measure(net) <= limit.most for limit in limits)]


@dataclass(frozen=True)
class Optimum:
    """The best of a grid.

    Attributes:
        spec: The network.
        score: Its score.
        networks: How many were looked at.
    """

    spec: ArchSpec
    score: float
    networks: int


def exhaustive(networks: Sequence[ArchSpec], score: Callable[[ArchSpec], float]) -> Optimum:
    """Score every network.

    Args:
        networks: From :func:`all_within`.
        score: Larger is better.

    Raises:
        UserError: If there are none.
    """
    if not networks:
        raise UserError("no network of the grid is within the budget's window: give a larger delta or another grid")
    best = max(networks, key=score)
    return Optimum(best, score(best), len(networks))
