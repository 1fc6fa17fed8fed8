"""Which networks nothing beats in accuracy and in a cost, for each cost that is known of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effkit.report import Table

__all__ = ["COSTS", "Cost", "fronts", "pareto"]

Row = Mapping[str, Any]


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the points that no other beats in both numbers (more is better), from the lowest first number."""
    best = [
        name
        for name, (x, y) in points.items()
        if not any((a >= x and b >= y) and (a, b) != (x, y) for a, b in points.values())
    ]
    return sorted(best, key=lambda name: points[name])


@dataclass(frozen=True)
class Cost:
    """What a network costs, or how fast it is.

    Attributes:
        key: Short name, of its picture.
        label: With its unit.
        less_is_better: Whether a small one is a good one.
        of: From a row; none or 0 if it is not known.
    """

    key: str
    label: str
    less_is_better: bool
    of: Callable[[Row], float | None]

    def points(self, rows: Sequence[Row]) -> dict[str, tuple[float, float, str]]:
        """Cost, published accuracy and group of the networks of which both are known."""
        return {
            row["name"]: (cost, row["backbone"]["published"]["top1"], row["backbone"]["group"] or "other")
            for row in rows
            if row["backbone"]["published"].get("top1") and (cost := self.of(row))
        }

    def front(self, points: Mapping[str, tuple[float, float, str]]) -> list[str]:
        """Names on the front, from the smallest to the largest cost."""
        sign = -1 if self.less_is_better else 1
        found = pareto({name: (sign * cost, top1) for name, (cost, top1, _) in points.items()})
        return found[::sign]


def _train_mib(row: Row) -> float | None:
    return (row["train"]["peak_bytes"] or 0) / 2**20 if row.get("train") else None


COSTS = (
    Cost("throughput", "measured images/s", False, lambda row: row.get("throughput")),
    Cost("macs", "GMACs", True, lambda row: row["counts"].get("macs", 0) / 1e9),
    Cost(
        "latency", "measured latency at batch 1, ms", True,
        lambda row: 1e3 * row["latency"]["seconds"] if row.get("latency") else None,
    ),
    Cost("memory", "memory of a training step, MiB", True, _train_mib),
)  # fmt: skip
"""What accuracy is held against, in the order of the pictures."""


def fronts(rows: Sequence[Row]) -> Table:
    """The front of each cost that two networks or more have."""
    table = Table("Pareto fronts", ["accuracy against", "networks", "on the front", "which, from the smallest"])
    for cost in COSTS:
        points = cost.points(rows)
        if len(points) > 1:
            front = cost.front(points)
            table.rows.append([cost.label, len(points), len(front), ", ".join(front)])
    table.note = "On the front: no other network is as good or better in both. Accuracy is the published one."
    return table
