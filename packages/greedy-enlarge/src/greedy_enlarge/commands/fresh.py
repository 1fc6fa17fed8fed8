"""Fresh seeds of a searched network and of its baselines, measured on the test split; kept beside the search."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effkit.errors import UserError
from effkit.executors import Choice
from effkit.intervals import mean_interval, paired_interval
from effkit.progress import report_progress, shown
from effkit.report import Table
from greedy_enlarge.commands.search import open_executor, say
from greedy_enlarge.families import macs, params
from greedy_enlarge.search.journal import Journal
from greedy_enlarge.search.running import Runner
from greedy_enlarge.search.tasks import Task, seed_of
from greedy_enlarge.spec import ArchSpec
from greedy_enlarge.training.final import FreshTest
from greedy_enlarge.training.proxy import ProxyTrain

__all__ = ["FOLDER", "fresh_table", "measure_fresh", "whole"]

FOLDER = "fresh"


def whole(field: str, value: Any, least: int) -> int:
    """A whole number from a config.

    Raises:
        UserError: If it is none, or below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{field}={value!r} must be a whole number of at least {least}")
    return value


def measure_fresh(
    networks: Mapping[str, ArchSpec], searched: Mapping[str, Any], given: Mapping[str, Any], folder: Path
) -> dict[str, list[float]]:
    """Train every network from scratch with every seed.

    Args:
        networks: By name.
        searched: Settings of the search: its data, and its evaluator if that trains.
        given: The report's keys: ``seeds``, ``epochs``, ``device``, ``threads`` and where it runs.
        folder: Of the search; gets a journal, so that what is finished is not trained again.

    Returns:
        Test accuracies in percent, seed by seed.

    Raises:
        UserError: If data and networks do not fit together, or a training failed twice.
    """
    trains = searched["evaluator"] if searched["evaluator"]["name"] == "proxy_train" else {}
    how = {key: trains[key] for key in ("optimizer", "label_smoothing", "calibration", "ema") if key in trains}
    how |= {"epochs": whole("epochs", given["epochs"], 1), "device": given["device"], "threads": given["threads"]}
    config = {"data": searched["data"], **how}
    name = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
    own = folder / FOLDER / name
    first = next(iter(networks.values()))
    proxy = ProxyTrain.for_search(first, folder=str(own / "states"), data=searched["data"], inherits=False, **how)
    tasks: list[Task] = []
    about: list[dict[str, Any]] = []
    for seed in range(given["seeds"]):
        root = seed_of(searched["seed"], "fresh", seed)  # one that no search has used
        for title, spec in networks.items():
            tasks.append(Task.make(root, spec, 0, 0))
            about.append({"network": title, "seed": seed})
    choice = Choice.from_config(given, folder / "workers")
    with Journal.open(own, config, say) as journal, open_executor(choice) as executor, shown("fresh seeds"):

        def progress(done: int, total: int) -> None:
            report_progress(f"training {done} of {total}", done / max(1, total))

        results = Runner(FreshTest(proxy), executor, journal, progress).run(tasks, about)
    found: dict[str, list[float]] = {title: [] for title in networks}
    for note, result in zip(about, results, strict=True):
        if result.status != "ok":
            raise UserError(f"{note['network']}, seed {note['seed']}, failed twice: {result.reason}")
        found[note["network"]].append(100 * result.metrics["test_accuracy"])
    return found


def fresh_table(networks: Mapping[str, ArchSpec], accuracies: Mapping[str, list[float]], reference: str) -> Table:
    """Means with their intervals, and how far the reference network is ahead of each.

    Args:
        networks: By name.
        accuracies: Percent, seed by seed.
        reference: Which network the others are compared with, seed by seed.
    """
    rows: list[list[Any]] = []
    for name, spec in networks.items():
        mean, half = mean_interval(accuracies[name])
        ahead: list[float | None] = [None, None]
        if name != reference:
            ahead = list(paired_interval(accuracies[reference], accuracies[name]))
        rows.append([name, macs(spec), params(spec), *(_shown(v) for v in (mean, half, *ahead))])
    columns = ["network", "MACs", "params", "test accuracy, %", "+-", f"{reference} ahead by", "+-"]
    number = len(accuracies[reference])
    note = (
        f"{number} fresh seeds on test pictures that no search has read; +- is half of a 95 % interval (Student's t)."
    )
    return Table("Untouched test pictures", columns, rows, note)


def _shown(value: float | None) -> float | None:
    return None if value is None or value == float("inf") else round(value, 2)
