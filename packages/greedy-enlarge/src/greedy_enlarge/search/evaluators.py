"""Evaluators that need no training: a closed form for tests, a recorded table, and zero-cost figures."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from effkit.errors import UserError, choose
from greedy_enlarge.families import macs, params, stage_shares
from greedy_enlarge.search.tasks import Result, Task
from greedy_enlarge.spec import ArchSpec

__all__ = ["RandomChoice", "Synthetic", "TableLookup", "ZeroCost", "log_stage_macs"]


def log_stage_macs(spec: ArchSpec) -> float:
    """Sum over the stages of ln(MACs): a score whose greedy path is known."""
    return sum(math.log(m) for m in stage_shares(spec).macs[1:-1])


@dataclass(frozen=True)
class Synthetic:
    """A score in closed form.

    Args:
        score: Of a network; module-level, so that it can be sent to other processes.
        name: Of the score, in fingerprints.
    """

    score: Callable[[ArchSpec], float] = log_stage_macs
    name: str = "log_stage_macs"
    metric: str = "score"
    inherits: bool = False
    n_val: int = 0

    def evaluate(self, task: Task) -> Result:
        """The score."""
        return Result({"score": self.score(task.spec)})

    def fingerprint(self) -> dict[str, Any]:
        """Its name."""
        return {"name": "synthetic", "score": self.name}


@dataclass(frozen=True)
class TableLookup:
    """Scores from a recorded table.

    Args:
        rows: Canonical JSON of a network to its metrics, one dictionary a repeat.
        metric: Which of them selects.
        n_val: Pictures it is a share of.
        curves: By training samples: rows as above. Empty if the table does not say after how many its figures are.
    """

    rows: Mapping[str, list[dict[str, float]]]
    metric: str = "accuracy"
    n_val: int = 0
    curves: Mapping[int, Mapping[str, list[dict[str, float]]]] = field(default_factory=dict)
    inherits: bool = False

    def evaluate(self, task: Task) -> Result:
        """The recorded metrics of the task's repeat, after the task's samples if it asks for a number of them.

        Raises:
            UserError: If the table has no such network, not so many repeats, or nothing after so many samples.
        """
        key, rows = task.spec.to_json(), self.rows
        if task.samples is not None:
            if task.samples not in self.curves:
                there = ", ".join(map(str, sorted(self.curves))) or "none, it does not say"
                raise UserError(f"samples={task.samples}: the table has figures after {there}")
            rows = self.curves[task.samples]
        if key not in rows:
            raise UserError(f"evaluator table has no row for {key}: it was recorded for another space")
        found = rows[key]
        if task.repeat >= len(found):
            raise UserError(f"repeats={task.repeat + 1}: the table has {len(found)} for {key}")
        return Result(dict(found[task.repeat]))

    def fingerprint(self) -> dict[str, Any]:
        """A hash of the whole table."""
        text = json.dumps([self.rows, self.curves] if self.curves else self.rows, sort_keys=True)
        return {"name": "table", "metric": self.metric, "rows": hashlib.sha256(text.encode()).hexdigest()[:16]}


@dataclass(frozen=True)
class RandomChoice:
    """A score that is nothing but the task's seed: the search takes any candidate, a random monotone path."""

    metric: str = "score"
    inherits: bool = False
    n_val: int = 0

    def evaluate(self, task: Task) -> Result:
        """A number in [0, 1), equally likely everywhere."""
        return Result({"score": task.seed / 2**31})

    def fingerprint(self) -> dict[str, Any]:
        """Its name."""
        return {"name": "random"}


_PROXIES = ("synflow", "params", "macs")


@dataclass(frozen=True)
class ZeroCost:
    """Figures of the untrained network. At equal MACs most of their signal vanishes: they are for comparison.

    Args:
        metric: ``synflow`` (sum of |weight x gradient| with all weights made positive), ``params`` or ``macs``.
    """

    metric: str = "synflow"
    inherits: bool = False
    n_val: int = 0

    def __post_init__(self) -> None:
        choose("evaluator.metric", self.metric, _PROXIES)

    def evaluate(self, task: Task) -> Result:
        """The figure; synflow as its natural logarithm."""
        if self.metric == "synflow":
            return Result({"synflow": _synflow(task.spec, task.seed)})
        count = params if self.metric == "params" else macs
        return Result({self.metric: float(count(task.spec))})

    def fingerprint(self) -> dict[str, Any]:
        """Its name and metric."""
        return {"name": "zero_cost", "metric": self.metric}


def _synflow(spec: ArchSpec, seed: int) -> float:
    import torch

    from greedy_enlarge.networks.build import build

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(spec, dtype=torch.float64).eval()
    for parameter in model.parameters():
        parameter.data.abs_()
    picture = torch.ones(1, spec.in_chans, spec.resolution, spec.resolution, dtype=torch.float64)
    model(picture).sum().backward()
    found = sum(float((p.detach() * p.grad).abs().sum()) for p in model.parameters() if p.grad is not None)
    return math.log(found) if found > 0 else -math.inf
