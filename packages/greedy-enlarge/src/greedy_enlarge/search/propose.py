"""Candidates of one step: every coordinate walked upward until the budget is passed, the closest value kept."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from effkit.errors import UserError
from greedy_enlarge.families import count_many, macs, params
from greedy_enlarge.search.moves import Moves, move_names
from greedy_enlarge.spec import ArchSpec

__all__ = ["Candidate", "Dropped", "Proposal", "ceiling", "propose"]

_MOST = {"depth": 1_000, "width": 32_768, "resolution": 8_192}
_BLOCK = 32  # values of a coordinate that are counted at once


@dataclass(frozen=True)
class Candidate:
    """One network a step could go to.

    Attributes:
        move: ``depth_1``, ``width_3``, ``resolution``; two joined by ``+``.
        spec: The network.
        macs: Its MACs.
        params: Its parameters.
        deviation: ``(MACs - budget) / budget``.
    """

    move: str
    spec: ArchSpec
    macs: int
    params: int
    deviation: float


@dataclass(frozen=True)
class Dropped:
    """A move that leads nowhere in this step.

    Attributes:
        move: Its name.
        nearest: MACs of the closest network it reaches; ``None`` if it cannot be made at all.
        reason: Why it is dropped.
    """

    move: str
    nearest: int | None
    reason: str


@dataclass(frozen=True)
class Proposal:
    """The candidates of a step, in the order of moves, and what was dropped.

    Attributes:
        budget: MACs to come to.
        candidates: What can be evaluated.
        dropped: What cannot, and why.
        nearest: Whether no move came within the tolerance of the last step, and the closest stands in for all.
    """

    budget: int
    candidates: tuple[Candidate, ...]
    dropped: tuple[Dropped, ...]
    nearest: bool = False


def propose(spec: ArchSpec, budget: int, delta: float, moves: Moves, *, fallback: float | None = None) -> Proposal:
    """All candidates of a step.

    Args:
        spec: Where the step starts.
        budget: MACs to come to.
        delta: Largest allowed ``|MACs - budget| / budget``.
        moves: Which moves there are.
        fallback: If no move comes within ``delta``, take the closest one within this, and say so.

    Returns:
        The candidates; of each move the value whose MACs are closest to the budget, of equals the smaller.

    Raises:
        UserError: If the start does not fit the moves, or none of them comes close enough; lists what each reaches.
    """
    moves.check(spec)
    kept: list[Candidate] = []
    dropped: list[Dropped] = []
    reached: list[Candidate] = []
    lines = _walk(spec, budget, moves)
    single = [_best(spec, budget, (name,), values[:, None], costs) for name, (values, costs) in lines.items()]
    tried = [*zip(lines, single, strict=True), *(_pairs(spec, budget, lines) if moves.pairs else ())]
    for name, best in tried:
        if best is None:
            dropped.append(Dropped(name, None, "its cap allows no step"))
            continue
        over = [limit for limit in moves.limits if limit.measure(best.spec) > limit.most]
        if over:
            figures = ", ".join(f"{x.name} {x.measure(best.spec):,.6g} above {x.most:,.6g}" for x in over)
            dropped.append(Dropped(name, best.macs, figures))
            continue
        reached.append(best)
        if abs(best.macs - budget) <= delta * budget:
            kept.append(best)
        else:
            dropped.append(Dropped(name, best.macs, f"{100 * best.deviation:+.1f} % from the budget"))
    if kept:
        return Proposal(budget, tuple(kept), tuple(dropped))
    if fallback is not None:
        near = [c for c in reached if abs(c.macs - budget) <= fallback * budget]
        if near:
            closest = min(near, key=lambda c: (abs(c.macs - budget), c.macs))
            return Proposal(budget, (closest,), tuple(d for d in dropped if d.move != closest.move), nearest=True)
    listed = "; ".join(f"{d.move}: {'-' if d.nearest is None else f'{d.nearest:,}'} ({d.reason})" for d in dropped)
    raise UserError(
        f"budget={budget:,}: no move comes within {100 * (delta if fallback is None else fallback):g} % of it from "
        f"{macs(spec):,} MACs; give another number of steps or a larger delta. Nearest: {listed}"
    )


def ceiling(spec: ArchSpec, moves: Moves, steps: int) -> int | None:
    """MACs of the largest network that so many steps of these moves could reach; ``None`` if nothing bounds them."""
    allowed = moves.allowed(spec)
    row = list(spec.coordinates())
    bounded = set(moves.largest) >= {name.split("_")[0] for name in allowed}
    if not moves.capped and not bounded:
        return None
    corner = spec
    for _ in range(min(steps, 20)):
        for i, name in enumerate(move_names(spec)):
            if name in allowed:
                row[i] = max(row[i], moves.highest(corner, name, _MOST[name.split("_")[0]]))
        corner = spec.with_coordinates(row)
    return macs(corner)


def _walk(spec: ArchSpec, budget: int, moves: Moves) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Values of each coordinate up to the first that passes the budget, with their MACs."""
    names = move_names(spec)
    start = np.array(spec.coordinates(), dtype=np.int64)
    cost = macs(spec)
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    open_moves = {n: (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)) for n in moves.allowed(spec)}
    order = list(open_moves)
    block = _BLOCK
    while open_moves:
        rows, owners = [], []
        for name, (values, _) in open_moves.items():
            index, step = names.index(name), moves.step(spec, name)
            top = moves.highest(spec, name, _MOST[name.split("_")[0]])
            first = start[index] + step * (len(values) + 1)
            fresh = np.arange(first, min(top, first + step * (block - 1)) + 1, step)
            table = np.repeat(start[None], len(fresh), axis=0)
            table[:, index] = fresh
            rows.append(table)
            owners.append((name, fresh, len(fresh) < block))
        costs = _count(spec, np.concatenate(rows))
        at = 0
        for name, fresh, ended in owners:
            new = costs[at : at + len(fresh)]
            at += len(fresh)
            values, known = open_moves[name]
            values, known = np.concatenate([values, fresh]), np.concatenate([known, new])
            open_moves[name] = values, known
            passed = np.flatnonzero(known > budget)
            if len(passed) or ended:
                stop = passed[0] + 1 if len(passed) else len(known)
                values, known = values[:stop], known[:stop]
                changed = known != cost  # a value that rounding makes the same network in all but name
                found[name] = values[changed], known[changed]
                del open_moves[name]
        block *= 4
    return {name: found[name] for name in order}


def _count(spec: ArchSpec, table: np.ndarray) -> np.ndarray:
    s = spec.stages
    return count_many(spec, table[:, :s], table[:, s : 2 * s], table[:, 2 * s]) if len(table) else np.zeros(0, np.int64)


def _best(
    spec: ArchSpec, budget: int, names: tuple[str, ...], values: np.ndarray, costs: np.ndarray
) -> Candidate | None:
    """The row of values ``(N, moves)`` closest to the budget; of equals the smaller cost, then the first."""
    if not len(costs):
        return None
    index = np.lexsort((np.arange(len(costs)), costs, np.abs(costs - budget)))[0]
    row = list(spec.coordinates())
    for name, value in zip(names, values[index], strict=True):
        row[move_names(spec).index(name)] = int(value)
    found, cost = spec.with_coordinates(row), int(costs[index])
    return Candidate("+".join(names), found, cost, params(found), (cost - budget) / budget)


def _pairs(
    spec: ArchSpec, budget: int, lines: dict[str, tuple[np.ndarray, np.ndarray]]
) -> list[tuple[str, Candidate | None]]:
    """Two coordinates at once, each by at least one step."""
    names, start = move_names(spec), np.array(spec.coordinates(), dtype=np.int64)
    found = []
    for a, b in itertools.combinations(lines, 2):
        grid = np.array(list(itertools.product(lines[a][0], lines[b][0])), dtype=np.int64).reshape(-1, 2)
        table = np.repeat(start[None], len(grid), axis=0)
        table[:, [names.index(a), names.index(b)]] = grid
        found.append((f"{a}+{b}", _best(spec, budget, (a, b), grid, _count(spec, table))))
    return found
