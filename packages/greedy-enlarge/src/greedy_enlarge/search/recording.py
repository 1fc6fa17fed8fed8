"""Training every network of a space, and the file that is made of it: a table to try search rules on in milliseconds.

The file is CSV under a heading of comment lines, which say what was run, where, and the SHA-256 of the lines below.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effkit.errors import UserError
from greedy_enlarge.families import macs, params
from greedy_enlarge.search.running import Runner
from greedy_enlarge.search.space import Space
from greedy_enlarge.search.tasks import Task
from greedy_enlarge.spec import ArchSpec

__all__ = ["COLUMNS", "Recorded", "parse", "record", "render"]

COLUMNS = ("level", "depths", "widths", "resolution", "macs", "params", "repeat", "samples", "accuracy", "loss")
_MARK = "# greedy-enlarge, recorded table"

Repeats = list[dict[str, float]]
"""Metrics of one network, repeat by repeat."""


@dataclass(frozen=True)
class Recorded:
    """A recorded table.

    Attributes:
        about: The heading: command, machine, commit, date, evaluator, space, n_val.
        curves: By training samples, by canonical JSON of a network: its metrics, repeat by repeat.
    """

    about: Mapping[str, Any]
    curves: Mapping[int, Mapping[str, Repeats]]

    @property
    def rows(self) -> Mapping[str, Repeats]:
        """What the longest trainings reached."""
        return self.curves[max(self.curves)]

    @property
    def samples(self) -> tuple[int, ...]:
        """After how many training samples there are figures."""
        return tuple(sorted(self.curves))

    @property
    def repeats(self) -> int:
        """Trainings of each network."""
        return min(len(found) for found in self.rows.values())


def record(space: Space, runner: Runner, samples: Sequence[int], repeats: int, seed: int) -> list[list[Any]]:
    """Train every network of a space, each repeat going on from one number of samples to the next.

    Args:
        space: The networks.
        runner: Runs and files the trainings; what it has already is not run again.
        samples: Training samples after which a network is measured, increasing.
        repeats: Trainings of each network, with seeds of their own.
        seed: Root of all seeds.

    Returns:
        Rows of :data:`COLUMNS`.

    Raises:
        UserError: If a training failed twice; what was finished stays in the journal.
    """
    states: dict[tuple[ArchSpec, int], str] = {}
    rows = []
    for rung, count in enumerate(samples):
        tasks, about = [], []
        for level, networks in enumerate(space.levels):
            for net in networks:
                for r in range(repeats):
                    tasks.append(Task.make(seed, net, level, r, samples=count, continues=states.get((net, r), "")))
                    about.append({"level": level, "repeat": r, "rung": rung})
        for task, result in zip(tasks, runner.run(tasks, about), strict=True):
            if result.status != "ok":
                raise UserError(f"{task.spec.to_json()}, repeat {task.repeat}, failed twice: {result.reason}")
            states[task.spec, task.repeat] = result.state
            net, found = task.spec, result.metrics
            sizes = [" ".join(map(str, net.depths)), " ".join(map(str, net.widths)), net.resolution]
            figures = [round(found["accuracy"], 6), round(found["loss"], 6)]
            rows.append([task.step, *sizes, macs(net), params(net), task.repeat, count, *figures])
    return rows


def render(about: Mapping[str, Any], rows: Sequence[Sequence[Any]]) -> str:
    """The file's text.

    Args:
        about: Plain values by name; ``space`` holds the start under ``spec``.
        rows: From :func:`record`.
    """
    body = io.StringIO()
    writer = csv.writer(body, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    text = body.getvalue()
    heading = {**about, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    lines = [_MARK, *(f"# {key}: {json.dumps(value, sort_keys=True)}" for key, value in heading.items())]
    return "\n".join(lines) + "\n" + text


def parse(text: str, name: str) -> Recorded:
    """Read what :func:`render` wrote.

    Args:
        text: Of the file.
        name: Of the file, for messages.

    Raises:
        UserError: If it is no recorded table, or was changed since it was written.
    """
    lines = text.splitlines(keepends=True)
    if not lines or lines[0].rstrip("\n") != _MARK:
        raise UserError(f"{name} is no recorded table: it does not begin with {_MARK!r}")
    about: dict[str, Any] = {}
    at = 1
    for number, line in enumerate(lines[1:], 2):
        if not line.startswith("# "):
            break
        key, _, value = line[2:].partition(": ")
        try:
            about[key] = json.loads(value)
        except ValueError as error:
            raise UserError(f"{name}, line {number}: {' '.join(str(error).split())}") from error
        at = number
    body = "".join(lines[at:])
    found = hashlib.sha256(body.encode()).hexdigest()
    if about.get("sha256") != found:
        raise UserError(f"{name} is damaged: its lines have the SHA-256 {found[:16]}..., its heading says another")
    try:
        start = ArchSpec.from_dict(about["space"]["spec"])
        curves: dict[int, dict[str, Repeats]] = {}
        for row in csv.DictReader(io.StringIO(body)):
            depths, widths = (tuple(map(int, row[k].split())) for k in ("depths", "widths"))
            net = start.replace(depths=depths, widths=widths, resolution=int(row["resolution"]))
            repeats = curves.setdefault(int(row["samples"]), {}).setdefault(net.to_json(), [])
            if int(row["repeat"]) != len(repeats):
                raise UserError(f"{name}: repeats of {net.to_json()} are not in order")
            repeats.append({"accuracy": float(row["accuracy"]), "loss": float(row["loss"])})
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{name} cannot be read: {type(error).__name__}: {error}") from error
    if not curves:
        raise UserError(f"{name} holds no row")
    return Recorded(about, curves)
