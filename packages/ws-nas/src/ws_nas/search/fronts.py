"""Non-dominated fronts and crowding of two goals (Deb et al., NSGA-II, 2002)."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["crowding", "fronts"]

Goals = tuple[float, float]


def fronts(goals: Sequence[Goals]) -> list[list[int]]:
    """Places of points, front by front: of the first none is beaten, of the second only by the first, and so on.

    A point beats another if it is at least as large in both goals and larger in one; equal points share a front.

    Args:
        goals: Both to be large.

    Example:
        >>> fronts([(1.0, 3.0), (2.0, 2.0), (1.0, 2.0), (2.0, 2.0)])
        [[0, 1, 3], [2]]
    """
    order = sorted(range(len(goals)), key=lambda i: (-goals[i][0], -goals[i][1], i))
    found: list[list[int]] = []
    tops: list[tuple[float, Goals]] = []  # of each front the largest second goal so far, and whose it is
    for i in order:
        # From larger to smaller first goals, a front beats the point if any of its second goals is as large.
        for number, (top, at) in enumerate(tops):
            if goals[i][1] > top or goals[i] == at:
                found[number].append(i)
                tops[number] = (goals[i][1], goals[i])
                break
        else:
            found.append([i])
            tops.append((goals[i][1], goals[i]))
    return [sorted(front) for front in found]


def crowding(goals: Sequence[Goals]) -> list[float]:
    """How far the neighbours of each point of a front are apart, summed over goals; infinite at its ends.

    Args:
        goals: Of one front.
    """
    apart = [0.0] * len(goals)
    for axis in (0, 1):
        order = sorted(range(len(goals)), key=lambda i: goals[i][axis])
        span = goals[order[-1]][axis] - goals[order[0]][axis]
        apart[order[0]] = apart[order[-1]] = math.inf
        if span > 0:
            for before, i, after in zip(order, order[1:], order[2:], strict=False):
                apart[i] += (goals[after][axis] - goals[before][axis]) / span
    return apart
