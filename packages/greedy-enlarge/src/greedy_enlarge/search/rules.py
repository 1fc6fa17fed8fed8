"""Search rules on a recorded table, whose true optimum is known: what each finds, what it costs, what it misses."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from effkit.errors import UserError
from greedy_enlarge.families.scaling import METHODS
from greedy_enlarge.search.evaluators import TableLookup, ZeroCost
from greedy_enlarge.search.exhaustive import exhaustive
from greedy_enlarge.search.greedy import Settings, search
from greedy_enlarge.search.moves import Moves
from greedy_enlarge.search.propose import propose
from greedy_enlarge.search.racing import Racing
from greedy_enlarge.search.recording import Recorded
from greedy_enlarge.search.space import Space, open_space
from greedy_enlarge.search.tasks import Evaluator, Result, Task
from greedy_enlarge.spec import ArchSpec

__all__ = ["Outcome", "compare_rules", "mean_score", "nearest_uniform", "random_paths", "space_of"]


@dataclass(frozen=True)
class Outcome:
    """What a rule comes to.

    Attributes:
        rule: Its name.
        score: Mean recorded accuracy of the network, a fraction; of a random rule its expectation.
        regret: How far that is below the best network of the last level.
        samples: Training samples it looks at; 0 where it trains nothing.
        spec: The network; ``None`` of a random rule.
    """

    rule: str
    score: float
    regret: float
    samples: int
    spec: ArchSpec | None = None


def space_of(table: Recorded) -> Space:
    """The space that a table was recorded of.

    Raises:
        UserError: If the table does not hold all of it, so that its optimum is not known.
    """
    about = table.about["space"]
    kinds = dict(about["moves"])
    if kinds.pop("limits"):
        raise UserError("the table's space has maxima beside its budget: rules cannot be compared on it")
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in kinds.items()}
    moves = Moves(**given)
    budgets = about["budgets"]
    how = {"steps": len(budgets) - 1, "delta": about["delta"], "delta_final": about["delta_final"]}
    space = open_space(ArchSpec.from_dict(about["spec"]), budgets[-1], moves, **how)
    for samples, rows in table.curves.items():
        missing = [net for net in space.networks if len(rows.get(net.to_json(), ())) < table.repeats]
        if missing:
            raise UserError(
                f"the table lacks {len(missing)} of {len(space.networks)} networks of its space after {samples} "
                f"samples, the first is {missing[0].to_json()}"
            )
    return space


def mean_score(table: Recorded) -> Callable[[ArchSpec], float]:
    """Mean accuracy over the repeats, after the longest trainings."""
    rows = table.rows
    return lambda net: statistics.fmean(r["accuracy"] for r in rows[net.to_json()])


class _Counting:
    """An evaluator that notes how many training samples each network was given."""

    def __init__(self, inner: Evaluator) -> None:
        self.inner = inner
        self.full = max(inner.curves) if isinstance(inner, TableLookup) else 0
        self.metric, self.inherits, self.n_val = inner.metric, inner.inherits, inner.n_val
        self.given: dict[tuple[Any, ...], int] = {}

    def evaluate(self, task: Task) -> Result:
        key = task.spec, task.repeat
        self.given[key] = max(self.given.get(key, 0), task.samples or self.full)
        return self.inner.evaluate(task)

    def fingerprint(self) -> dict[str, Any]:
        return self.inner.fingerprint()


def random_paths(space: Space) -> dict[ArchSpec, float]:
    """Where a monotone path ends that takes any candidate of a step with equal probability; exact.

    Returns:
        Probability of each network. Paths that come to a network without a candidate are left out, the others stand
        for them.
    """
    here = {space.spec: 1.0}
    for level in range(1, len(space.levels)):
        there: dict[ArchSpec, float] = {}
        for net, probability in here.items():
            found = candidates_of(space, net, level)
            for candidate in found:
                there[candidate] = there.get(candidate, 0.0) + probability / len(found)
        here = there
    total = sum(here.values())
    return {net: p / total for net, p in here.items()}


def candidates_of(space: Space, net: ArchSpec, level: int) -> list[ArchSpec]:
    """The networks of a level that one move leads to; none where there is no such move."""
    schedule = space.schedule
    try:
        proposal = propose(net, schedule.budget(level), schedule.tolerance(level), space.moves)
    except UserError:
        return []
    return [c.spec for c in proposal.candidates]


def nearest_uniform(space: Space, method: str) -> ArchSpec:
    """The network of the last level that uniform scaling would give, were it not for the grid.

    The factor of MACs is spread over the coordinates as the method does; the closest network is the one with the least
    sum of squared logarithmic distances.

    Args:
        space: The networks.
        method: One of :data:`~greedy_enlarge.families.scaling.METHODS`.
    """
    a, b, c = METHODS[method]
    s, total = space.spec.stages, a + b + c
    factor = math.log(space.schedule.target / space.schedule.start)
    powers = [a / total] * s + [b / total / 2] * s + [c / total / 2]
    start = space.spec.coordinates()

    def distance(net: ArchSpec) -> float:
        pairs = zip(net.coordinates(), start, powers, strict=True)
        return sum((math.log(value / first) - power * factor) ** 2 for value, first, power in pairs)

    return min(space.levels[-1], key=distance)


def compare_rules(table: Recorded, rules: Collection[str] | None = None) -> list[Outcome]:
    """Every rule on a table, the optimum first.

    Args:
        table: A recorded table.
        rules: Only these; all of them if not given.

    Raises:
        UserError: If it does not hold the whole of its space.
    """
    space, score = space_of(table), mean_score(table)
    last = space.levels[-1]
    best = exhaustive(last, score)
    found = [Outcome("optimum", best.score, 0.0, len(last) * table.repeats * table.samples[-1], best.spec)]

    def add(rule: str, value: Callable[[], tuple[float, int, ArchSpec | None]]) -> None:
        if rules is None or rule in rules:
            reached, samples, spec = value()
            found.append(Outcome(rule, reached, best.score - reached, samples, spec))

    for rule, evaluator, settings in _searches(table, space):
        add(rule, partial(_searched, space, score, evaluator, settings))
    for method in ("compound", "fast"):
        add(f"nearest to {method} scaling", partial(_nearest, space, score, method))
    add("random monotone path", lambda: (_expectation(random_paths(space), score), 0, None))
    add("any network of the last level", lambda: (statistics.fmean(map(score, last)), 0, None))
    return found


def _searches(table: Recorded, space: Space) -> Iterator[tuple[str, Evaluator, Settings]]:
    """The rules that are searches: name, evaluator, settings."""
    schedule = space.schedule
    plain = Settings(
        steps=schedule.steps, delta=schedule.delta, delta_final=schedule.delta_final, moves=space.moves,
        repeats=table.repeats,
    )  # fmt: skip
    pairs = dataclasses.replace(space.moves, pairs=True)
    changes: dict[str, dict[str, Any]] = {
        "greedy": {},
        "greedy, no tie rule": {"tie_margin": 0.0},
        "greedy, one training each": {"repeats": 1},
        "beam of 2": {"beam": 2},
        "beam of 4": {"beam": 4},
        "pair moves": {"moves": pairs},
        "pair moves, beam of 4": {"moves": pairs, "beam": 4},
    }
    if len(table.samples) > 1:
        changes["racing"] = {"racing": Racing(table.samples)}
        changes["racing, short"] = {"racing": Racing(table.samples[:-1])}
    lookup = TableLookup(table.rows, "accuracy", int(table.about["n_val"]), table.curves)
    for rule, change in changes.items():
        yield rule, lookup, dataclasses.replace(plain, **change)
    for metric in ("synflow", "params"):
        yield f"greedy by {metric}", ZeroCost(metric), dataclasses.replace(plain, repeats=1)


def _nearest(space: Space, score: Callable[[ArchSpec], float], method: str) -> tuple[float, int, ArchSpec]:
    spec = nearest_uniform(space, method)
    return score(spec), 0, spec


def _searched(
    space: Space, score: Callable[[ArchSpec], float], evaluator: Evaluator, settings: Settings
) -> tuple[float, int, ArchSpec]:
    """What a search comes to, and the training samples it looks at."""
    counting = _Counting(evaluator)
    spec = search(space.spec, space.schedule.target, counting, settings).spec
    return score(spec), sum(counting.given.values()), spec


def _expectation(chances: Mapping[ArchSpec, float], score: Callable[[ArchSpec], float]) -> float:
    return sum(p * score(net) for net, p in chances.items())
