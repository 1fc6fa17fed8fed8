"""Latency of a network as the sum of its parts', from a table measured on a machine.

A part is the first block of a stage (it depends on the widths before and behind it, and on the picture side), a further
block of a stage (on its width and the side), or what stands before and behind the stages (on the last width and the
side). Between measured values a part is interpolated linearly in widths and in the square of the side, which is how its
work grows; networks outside the measured range are refused.
"""

from __future__ import annotations

import bisect
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effkit.errors import UserError
from greedy_enlarge.search.moves import Moves, move_names
from greedy_enlarge.spec import ArchSpec

__all__ = ["KIND", "LatencyTable", "grid_points", "read_latency"]

KIND = "greedy-enlarge latency table"


def grid_points(spec: ArchSpec, moves: Moves, points: int) -> tuple[list[list[int]], list[int]]:
    """Values to measure at: from the start's to the caps of the moves, evenly, in their steps.

    Args:
        spec: The start.
        moves: Their ``largest`` bounds widths and side; depths need no bound.
        points: Values of each at most.

    Returns:
        Widths of each stage, and sides.

    Raises:
        UserError: If a kind that may move has no cap.
    """
    allowed, names = moves.allowed(spec), move_names(spec)
    found = []
    for name, now in zip(names[spec.stages :], spec.coordinates()[spec.stages :], strict=True):
        kind, most = name.split("_")[0], now
        if name in allowed:
            if kind not in moves.largest:
                raise UserError(f"moves.largest.{kind} is not set: it says up to where latencies are measured")
            most = max(now, moves.largest[kind])
        every = list(range(now, most + 1, moves.step(spec, name)))
        chosen = {round(i * (len(every) - 1) / max(1, points - 1)) for i in range(points)}
        found.append([every[i] for i in sorted(chosen)])
    return found[:-1], found[-1]


@dataclass(frozen=True)
class LatencyTable:
    """Measured seconds of parts.

    Attributes:
        about: Machine, threads, batch, date, commit, and how predictions compare with whole networks.
        spec: The network whose family, template, stem, head and classes all measured networks share.
        widths: Measured widths of each stage.
        sides: Measured picture sides.
        first: By stage: seconds of its first block, ``[width before][width][side]``.
        further: By stage: seconds of a further block, ``[width][side]``.
        ends: Seconds before and behind the stages, ``[last width][side]``.
    """

    about: Mapping[str, Any]
    spec: ArchSpec
    widths: Sequence[Sequence[int]]
    sides: Sequence[int]
    first: Sequence[Any]
    further: Sequence[Any]
    ends: Any

    def seconds(self, spec: ArchSpec) -> float:
        """Predicted latency of a network.

        Raises:
            UserError: If it is of another kind, or outside what was measured.
        """
        self.check(spec)
        side = _place(self.sides, spec.resolution, square=True)
        at = [_place(values, width) for values, width in zip(self.widths, spec.widths, strict=True)]
        total = _value(self.ends, at[-1], side)
        for i, depth in enumerate(spec.depths):
            before = at[i - 1] if i else ((0, 1.0),)  # the stem's width is one and the same, or goes with the first
            total += _value(self.first[i], before, at[i], side)
            total += (depth - 1) * _value(self.further[i], at[i], side)
        return total

    def check(self, spec: ArchSpec, largest: Mapping[str, int] | None = None) -> None:
        """Refuse networks that the table says nothing about.

        Args:
            spec: A network.
            largest: Also how far a search may go from it, by kind: ``width`` and ``resolution``.

        Raises:
            UserError: Says what was measured.
        """
        for name in ("family", "template", "stem", "head", "classes", "in_chans"):
            mine, theirs = getattr(self.spec, name), getattr(spec, name)
            if mine != theirs:
                raise UserError(f"the latency table was measured for spec.{name}={mine!r}, this network has {theirs!r}")
        wanted = [("resolution", self.sides, spec.resolution)]
        for i, (values, width) in enumerate(zip(self.widths, spec.widths, strict=True)):
            wanted.append((f"widths[{i}]", values, width))
        for name, values, now in wanted:
            kind = "resolution" if name == "resolution" else "width"
            most = now if largest is None else largest.get(kind)
            if most is None or not values[0] <= now <= values[-1] or most > values[-1]:
                upto = f"{now} without a cap" if most is None else f"{now} to {max(now, most)}"
                raise UserError(
                    f"the latency table holds {name} from {values[0]} to {values[-1]}, this search needs {upto}: set "
                    f"moves.largest.{kind}, or measure a table for it (greedy-enlarge latency)"
                )

    def to_json(self) -> str:
        """The file's text."""
        plain = {
            "kind": KIND, "about": dict(self.about), "spec": self.spec.to_dict(),
            "widths": [list(w) for w in self.widths], "sides": list(self.sides),
            "first": [np.asarray(f).tolist() for f in self.first],
            "further": [np.asarray(f).tolist() for f in self.further], "ends": np.asarray(self.ends).tolist(),
        }  # fmt: skip
        return json.dumps(plain) + "\n"


def read_latency(path: str | os.PathLike[str]) -> LatencyTable:
    """Read a table of ``greedy-enlarge latency``.

    Raises:
        UserError: If there is no such file, or it is none.
    """
    file = Path(path).expanduser()
    name = f"moves.latency_table={str(path)!r}"
    if not file.is_file():
        raise UserError(f"{name} is not a file: greedy-enlarge latency makes one")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        if value["kind"] != KIND:
            raise KeyError("kind")
        first, further = ([np.array(a, dtype=float) for a in value[k]] for k in ("first", "further"))
        spec, ends = ArchSpec.from_dict(value["spec"]), np.array(value["ends"], dtype=float)
        table = LatencyTable(value["about"], spec, value["widths"], value["sides"], first, further, ends)
        table.seconds(table.spec)
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise UserError(f"{name} is no table of greedy-enlarge latency: {' '.join(str(error).split())}") from error
    return table


Place = tuple[tuple[int, float], ...]


def _place(values: Sequence[int], value: int, *, square: bool = False) -> Place:
    """Between which measured values one lies, with their weights."""
    high = min(max(bisect.bisect_left(values, value), 1), len(values) - 1) if len(values) > 1 else 0
    if not high:
        return ((0, 1.0),)
    low = high - 1
    a, b, x = (v**2 if square else v for v in (values[low], values[high], value))
    share = (x - a) / (b - a)
    return ((low, 1 - share), (high, share))


def _value(array: Any, *places: Place) -> float:
    """An entry of a table between its entries."""
    if not places:
        return float(array)
    return sum(share * _value(array[index], *places[1:]) for index, share in places[0] if share)
