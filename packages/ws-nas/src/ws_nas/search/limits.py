"""What a search may not exceed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effkit.errors import UserError, choose
from ws_nas.meters.tables.latency import LatencyTable
from ws_nas.spaces.space import Genotype, Space

__all__ = ["COSTS", "Limit", "cost_of", "make_limits"]

COSTS = ("macs", "params", "latency_ms")

CostFunction = Callable[[Genotype], float]


@dataclass(frozen=True)
class Limit:
    """The most of a cost.

    Attributes:
        name: Of the cost, for messages.
        most: Allowed, itself included.
        of: Cost of a genotype; infinite where it is not known.
    """

    name: str
    most: float
    of: CostFunction


def cost_of(space: Space, name: str, latency: LatencyTable | Mapping[Genotype, float] | None = None) -> CostFunction:
    """The function that counts a cost.

    Args:
        space: Counts ``macs`` and ``params``.
        name: One of :data:`COSTS`.
        latency: For ``latency_ms``: a table, or measured milliseconds by genotype.

    Raises:
        UserError: If the name is not known, or ``latency_ms`` is asked for without a table.
    """
    if choose("cost", name, COSTS) == "macs":
        return lambda g: space.cost(g).macs
    if name == "params":
        return lambda g: space.cost(g).params
    if latency is None:
        raise UserError("latency_ms, limited or traded, needs a latency table: give latency=")
    if isinstance(latency, LatencyTable):
        latency.check(space)
        return latency.latency
    measured = latency
    return lambda g: measured.get(g, math.inf)


def make_limits(
    space: Space,
    limits: Mapping[str, Any] | Sequence[Limit] | None,
    latency: LatencyTable | Mapping[Genotype, float] | None = None,
) -> tuple[Limit, ...]:
    """Limits from their names and figures.

    Args:
        space: Theirs.
        limits: Name to the most, e.g. ``{"macs": 50e6}``; or limits as they are.
        latency: See :func:`cost_of`.

    Raises:
        UserError: If a name is not known, or a figure is no number above 0.
    """
    if limits is None:
        return ()
    if not isinstance(limits, Mapping):
        return tuple(limits)
    found = []
    for name, most in limits.items():
        if isinstance(most, bool) or not isinstance(most, int | float) or not 0 < most < math.inf:
            raise UserError(f"limit.{name}={most!r} must be a number above 0")
        choose("limit", name, COSTS)
        if name == "latency_ms" and latency is None:
            raise UserError(f"limit.latency_ms={most!r} needs a latency table: give latency=")
        found.append(Limit(name, most, cost_of(space, name, latency)))
    return tuple(found)
