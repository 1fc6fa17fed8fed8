"""Recording a table: every network of a capped space trained from scratch, with a journal in the run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effkit.arguments import renamed
from effkit.cli import run_dir
from effkit.errors import UserError, choose
from effkit.executors import Choice
from effkit.outputs import check_output_file
from effkit.progress import report_progress, shown
from effkit.provenance import commit_hash, cpu_name, now
from effkit.report import Report, Table
from effkit.report.files import write_json, write_text
from greedy_enlarge.commands.build import make_evaluator, make_moves, plain, read_spec
from greedy_enlarge.commands.search import RUNNING, open_executor, planned, say
from greedy_enlarge.search.journal import Journal
from greedy_enlarge.search.racing import Racing
from greedy_enlarge.search.recording import record, render
from greedy_enlarge.search.running import Runner
from greedy_enlarge.search.space import Space, open_space

__all__ = ["FOLDER", "SETTINGS", "execute", "plan_table", "read_space", "run"]

FOLDER = "table"
SETTINGS = "table.json"
SHAPING = (
    "spec",
    "budget",
    "steps",
    "delta",
    "delta_final",
    "samples",
    "repeats",
    "seed",
    "moves",
    "evaluator",
    "data",
)


def read_space(options: Mapping[str, Any]) -> Space:
    """The space that a config describes.

    Raises:
        UserError: If a value does not fit.
    """
    how = {key: options[key] for key in ("steps", "delta", "delta_final")}
    spec = read_spec(options["spec"])
    return open_space(spec, options["budget"], make_moves(options["moves"], spec), **how)


def _checked(options: Mapping[str, Any]) -> tuple[tuple[int, ...], int]:
    choose("evaluator.name", options["evaluator"]["name"], ["proxy_train"])
    if options["evaluator"]["inherits"]:
        raise UserError("evaluator.inherits=true: the networks of a table are trained from scratch, give false")
    repeats = options["repeats"]
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise UserError(f"repeats={repeats!r} must be a whole number of at least 1")
    if not isinstance(options["samples"], list):
        raise UserError(f"samples={options['samples']!r} must be a list")
    with renamed({"racing.samples": "samples"}):
        return Racing(tuple(options["samples"])).samples, repeats


def plan_table(space: Space, samples: tuple[int, ...], repeats: int) -> Table:
    """What is going to be trained."""
    rows = [
        [n, space.schedule.budget(n), len(nets), len(nets) * repeats, len(nets) * repeats * samples[-1]]
        for n, nets in enumerate(space.levels)
    ]
    number = len(space.networks)
    note = f"{number} networks, {number * repeats} trainings of {samples[-1]:,} samples, measured after {list(samples)}"
    return Table("Plan", ["level", "MACs", "networks", "trainings", "training samples"], rows, note)


def execute(options: Mapping[str, Any], folder: Path) -> Path:
    """Record a table, or go on with it, in a folder.

    Args:
        options: The config's keys.
        folder: Gets the journal, and the table unless ``out`` says where.

    Returns:
        The file.

    Raises:
        UserError: If a value does not fit, or a training failed twice.
    """
    space, (samples, repeats) = read_space(options), _checked(options)
    out = check_output_file("out", options["out"], [".csv"]) if options["out"] else folder / "table.csv"
    choice = Choice.from_config(options, folder / "workers")
    evaluator = make_evaluator(options, folder / FOLDER, space.spec)
    config = {**{key: options[key] for key in SHAPING}, "spec": space.spec.to_dict()}
    write_json(folder / SETTINGS, {key: options[key] for key in (*SHAPING, *RUNNING, "out", "command", "commit")})
    total = len(space.networks) * repeats

    def progress(done: int, of: int) -> None:
        report_progress(f"training {done} of {of}", done / max(1, of))
        if done % max(1, total // 20) == 0:
            say(f"{done} of {of} trainings at this number of samples")

    started = time.perf_counter()
    with Journal.open(folder / FOLDER, config, say) as journal, open_executor(choice) as executor, shown("table"):
        runner = Runner(evaluator, executor, journal, progress)
        rows = record(space, runner, samples, repeats, options["seed"])
        evaluated = runner.evaluated
    about = {
        "command": options["command"], "machine": cpu_name(), "commit": options["commit"], "date": now(),
        "seconds": round(time.perf_counter() - started), "evaluated": evaluated,
        "evaluator": evaluator.fingerprint(), "n_val": evaluator.n_val, "seed": options["seed"],
        "space": {
            "spec": space.spec.to_dict(), "budgets": [space.schedule.budget(n) for n in range(len(space.levels))],
            "networks": len(space.networks), "delta": options["delta"], "delta_final": options["delta_final"],
            "moves": space.moves.fingerprint(space.spec),
        },
    }  # fmt: skip
    return write_text(out, render(about, rows))


def run(cfg: Any) -> Report:
    """Do what ``greedy-enlarge table`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If it cannot succeed.
    """
    from hydra.core.hydra_config import HydraConfig

    options = plain(cfg)
    space, (samples, repeats) = read_space(options), _checked(options)
    plan = plan_table(space, samples, repeats)
    if (only := planned("greedy-enlarge table", plan, options)) is not None:
        return only
    where = ("out=", *(f"{key}{mark}" for key in RUNNING for mark in "=."))
    words = [word for word in HydraConfig.get().overrides.task if not word.startswith(where)]
    # The commit as the recording begins: the files may change while it runs.
    record_of = {"command": " ".join(["greedy-enlarge table", *words]), "commit": commit_hash(__file__)}
    file = execute({**options, **record_of}, run_dir())
    data = {"networks": len(space.networks), "trainings": len(space.networks) * repeats}
    return Report("greedy-enlarge table", [], data=data, files=[file])
