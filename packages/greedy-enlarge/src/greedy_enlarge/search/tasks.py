"""One evaluation: what is asked of an evaluator, what it answers, and the seeds, which never depend on scheduling."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from effkit.errors import UserError
from greedy_enlarge.spec import ArchSpec

__all__ = ["SCHEMA", "Evaluator", "Result", "Task", "run_task", "seed_of"]

SCHEMA = 1
"""Version of what evaluations mean; a result of another version is another result."""


def seed_of(root: int, *parts: Any) -> int:
    """A 31-bit seed from a root seed and what it is for.

    Example:
        >>> seed_of(0, "a", 1) == seed_of(0, "a", 1), seed_of(0, "a", 1) == seed_of(1, "a", 1)
        (True, False)
    """
    text = json.dumps([root, *parts], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


@dataclass(frozen=True)
class Task:
    """One evaluation.

    Attributes:
        spec: The network.
        step: Step of the search.
        repeat: From 0.
        seed: Of everything particular to the network, e.g. its initialisation.
        shared_seed: Equal for all networks of a step and repeat, so that they are compared on the same data order.
        samples: Training samples to have seen at the end; ``None`` leaves it to the evaluator.
        parent: The network whose weights it starts from, if the evaluator inherits.
        parent_state: Name of that network's kept state.
        continues: Name of this network's own state after fewer samples, which it goes on from.
    """

    spec: ArchSpec
    step: int
    repeat: int
    seed: int
    shared_seed: int
    samples: int | None = None
    parent: ArchSpec | None = None
    parent_state: str = ""
    continues: str = ""

    @classmethod
    def make(cls, root: int, spec: ArchSpec, step: int, repeat: int, **more: Any) -> Task:
        """A task with its seeds: from (root seed, network, step, repeat)."""
        return cls(
            spec, step, repeat, seed_of(root, spec.to_json(), step, repeat), seed_of(root, "step", step, repeat), **more
        )

    def key(self, fingerprint: Mapping[str, Any]) -> str:
        """What a result is filed under: all that it depends on.

        Args:
            fingerprint: Of the evaluator.
        """
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        own |= {name: own[name] and own[name].to_json() for name in ("spec", "parent")}
        text = json.dumps({"schema": SCHEMA, "task": own, "evaluator": fingerprint}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Result:
    """What an evaluation found.

    Attributes:
        metrics: Figures by name; larger is better for the one that selects.
        cost: What it took: ``samples``, ``seconds``, ...
        status: ``ok`` or ``failed``.
        reason: Why it failed.
        state: Name of the kept state (weights), if the evaluator keeps any.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    status: Literal["ok", "failed"] = "ok"
    reason: str = ""
    state: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**dataclasses.asdict(self), "metrics": dict(self.metrics), "cost": dict(self.cost)}


class Evaluator(Protocol):
    """Scores networks. It is sent to worker processes, so it can be pickled.

    Attributes:
        metric: Name of the figure that selects; larger is better.
        inherits: Whether candidates start from their parent's weights.
        n_val: Pictures the metric is a share of, as a fraction; 0 if it is no such share.
    """

    @property
    def metric(self) -> str: ...

    @property
    def inherits(self) -> bool: ...

    @property
    def n_val(self) -> int: ...

    def evaluate(self, task: Task) -> Result: ...

    def fingerprint(self) -> dict[str, Any]: ...


def run_task(evaluator: Evaluator, task: Task) -> Result:
    """Evaluate, and turn what goes wrong in one candidate into a failed result.

    Raises:
        UserError: If the evaluator says that the user made a mistake, or returns no finite figure under its metric.
    """
    try:
        result = evaluator.evaluate(task)
    except UserError:
        raise
    except MemoryError as error:
        return Result(status="failed", reason=f"out of memory: {_line(error)}")
    except Exception as error:
        out = "out of memory: " if type(error).__name__ == "OutOfMemoryError" else ""
        return Result(status="failed", reason=f"{out}{type(error).__name__}: {_line(error)}")
    if result.status == "ok":
        value = result.metrics.get(evaluator.metric)
        if value is None or isinstance(value, bool) or not math.isfinite(value):
            raise UserError(
                f"evaluator {type(evaluator).__name__} returned {evaluator.metric}={value!r} for "
                f"{task.spec.to_json()}: it must return a finite number there, or status 'failed'"
            )
    return result


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else "no message"
