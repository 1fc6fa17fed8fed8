"""A capped grid of networks, level by level: all that a search in it could ever look at."""

from __future__ import annotations

from dataclasses import dataclass

from effkit.errors import UserError
from greedy_enlarge.families import macs
from greedy_enlarge.search.exhaustive import all_within
from greedy_enlarge.search.moves import Moves, move_names
from greedy_enlarge.search.schedule import Schedule
from greedy_enlarge.spec import ArchSpec

__all__ = ["Space", "grid_values", "open_space"]


@dataclass(frozen=True)
class Space:
    """The networks of a capped grid whose MACs are close to a budget of a search's schedule.

    Attributes:
        spec: The start.
        schedule: The budgets.
        moves: What spans the grid.
        levels: Networks near each budget, each network once; level 0 is the start alone.
    """

    spec: ArchSpec
    schedule: Schedule
    moves: Moves
    levels: tuple[tuple[ArchSpec, ...], ...]

    @property
    def networks(self) -> tuple[ArchSpec, ...]:
        """All of them, level by level."""
        return tuple(net for level in self.levels for net in level)


def grid_values(spec: ArchSpec, moves: Moves) -> list[range]:
    """Values of each coordinate: from the start's upward by the move's step to its cap.

    Args:
        spec: The start.
        moves: Their ``largest`` bounds the grid; frozen coordinates stay.

    Raises:
        UserError: If a kind that may move has no cap.
    """
    allowed = moves.allowed(spec)
    values = []
    for name, now in zip(move_names(spec), spec.coordinates(), strict=True):
        kind, most = name.split("_")[0], now
        if name in allowed:
            if kind not in moves.largest:
                raise UserError(
                    f"moves.largest.{kind} is not set: a space to record is capped, give its greatest {kind}"
                )
            most = max(now, moves.largest[kind])
        values.append(range(now, most + 1, moves.step(spec, name)))
    return values


def open_space(
    spec: ArchSpec,
    budget: int,
    moves: Moves,
    *,
    steps: int | None = None,
    delta: float = 0.05,
    delta_final: float = 0.01,
) -> Space:
    """Look up every network of the grid near every budget.

    Args:
        spec: The start.
        budget: MACs of the last level.
        moves: What spans the grid.
        steps: Levels above the start; see :meth:`Schedule.plan`.
        delta: Largest allowed ``|MACs - budget| / budget`` of a level.
        delta_final: Of the last level.

    Raises:
        UserError: If a value does not fit, a kind has no cap, or a level holds no network.
    """
    moves.check(spec)
    schedule = Schedule.plan(macs(spec), budget, steps, delta, delta_final)
    if not schedule.steps:
        raise UserError(
            f"budget={budget:,} is within {100 * delta_final:g} % of the start's {schedule.start:,} MACs: there is no "
            "level above the start; give a larger budget or a smaller delta_final"
        )
    values = grid_values(spec, moves)
    seen = {spec}
    levels: list[tuple[ArchSpec, ...]] = [(spec,)]
    for number in range(1, schedule.steps + 1):
        near, within = schedule.budget(number), schedule.tolerance(number)
        found = [net for net in all_within(spec, near, within, values, moves) if net not in seen]
        if not found:
            raise UserError(
                f"budget={budget:,}: the grid has no network within {100 * within:g} % of level {number}'s {near:,} "
                "MACs; give a larger delta, other steps, or larger caps (moves.largest)"
            )
        seen.update(found)
        levels.append(tuple(found))
    return Space(spec, schedule, moves, tuple(levels))
