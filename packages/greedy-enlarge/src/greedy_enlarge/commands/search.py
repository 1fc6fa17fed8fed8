"""A search from a config: its plan, then its steps, with a journal in the run folder."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from effkit.cli import run_dir
from effkit.executors import Choice
from effkit.progress import report_progress, shown
from effkit.report import Report, Table
from effkit.report.files import write_json, write_text
from greedy_enlarge.commands.build import make_evaluator, make_settings, plain, read_spec
from greedy_enlarge.families import macs, params
from greedy_enlarge.search.greedy import SearchResult, Settings, Step, check_search, search
from greedy_enlarge.search.journal import Journal
from greedy_enlarge.search.tasks import Evaluator
from greedy_enlarge.spec import ArchSpec

__all__ = [
    "FOLDER", "RUNNING", "SETTINGS", "SHAPING", "execute", "open_executor", "path_table", "plan_table", "planned",
    "result_report", "run", "say", "shaping",
]  # fmt: skip

RUNNING = ("executor", "workers", "device", "threads", "ray", "submitit")  # how fast, not what
FOLDER = "search"  # inside the run folder: journal, decisions, states
SETTINGS = "search.json"
SHAPING = (
    "spec", "budget", "steps", "delta", "delta_final", "beam", "repeats", "tie_margin", "samples", "racing", "seed",
    "moves", "evaluator", "data",
)  # fmt: skip


def shaping(options: Mapping[str, Any]) -> dict[str, Any]:
    """What of a config shapes the result, canonical: what a journal is compared by."""
    found = {**{key: options[key] for key in SHAPING}, "spec": read_spec(options["spec"]).to_dict()}
    if options["evaluator"]["name"] != "proxy_train":
        del found["data"]
    table = options["moves"].get("latency_table")
    if table:  # what it holds, wherever it lies
        content = hashlib.sha256(Path(table).expanduser().read_bytes()).hexdigest()[:16]
        found["moves"] = {**options["moves"], "latency_table": content}
    return found


def plan_table(spec: ArchSpec, budget: int, settings: Settings) -> Table:
    """What a search is going to do, before it does it.

    Args:
        spec: The start.
        budget: MACs to come to.
        settings: How.

    Raises:
        UserError: If it cannot succeed.
    """
    schedule, first = check_search(spec, budget, settings)
    rows: list[list[Any]] = [["start", macs(spec), None, None]]
    moves = len(first.candidates) if first else 0
    evaluations = 0
    for n in range(1, schedule.steps + 1):
        # Candidates of later steps are not known before earlier ones are decided; all moves is the most there can be.
        number = moves if n == 1 else len(settings.moves.allowed(spec)) * settings.beam
        each = number * settings.repeats
        evaluations += each
        samples = (
            settings.racing.total(number) * settings.repeats if settings.racing else (settings.samples or 0) * each
        )
        rows.append([f"step {n}", schedule.budget(n), each, samples or None])
    note = f"at most {evaluations:,} evaluations" + (", and those of racing's later rungs" if settings.racing else "")
    return Table("Plan", ["", "MACs", "evaluations, at most", "training samples, at most"], rows, note)


def path_table(found: SearchResult) -> Table:
    """The steps of a search."""
    rows: list[list[Any]] = [["start", "", found.schedule.start, None, params(found.start), None, None]]
    for step in found.steps:
        best, ranking = step.chosen[0], step.ranking
        mean = next(s.mean for s in ranking.order if s.candidate.spec == best.spec)
        off = round(100 * best.deviation, 2)
        rows.append([f"step {step.number}", best.move, best.macs, off, best.params, mean, len(ranking.tie_set)])
    return Table("Path", ["", "move", "MACs", "off by %", "params", "score", "tied"], rows, found.message)


def execute(options: Mapping[str, Any], folder: Path) -> tuple[SearchResult, Evaluator]:
    """Run a search, or go on with it, in a folder.

    Args:
        options: The config's keys.
        folder: Gets ``search/`` and the result.

    Raises:
        UserError: If it cannot succeed; before anything is evaluated where that can be known.
    """
    spec, settings = read_spec(options["spec"]), make_settings(options)
    check_search(spec, options["budget"], settings)
    choice = Choice.from_config(options, folder / "workers")
    evaluator = make_evaluator(options, folder / FOLDER, spec)
    config = shaping(options)
    write_json(folder / SETTINGS, {key: options[key] for key in (*SHAPING, *RUNNING)})
    with (
        Journal.open(folder / FOLDER, config, say) as journal,
        open_executor(choice) as executor,
        shown("search"),
    ):
        found = search(
            spec, options["budget"], evaluator, settings, executor=executor, journal=journal, progress=_progress
        )
        write_text(folder / FOLDER / "decisions.jsonl", "\n".join(found.decisions) + "\n")
    write_text(folder / "spec.json", found.spec.to_json() + "\n")
    return found, evaluator


def open_executor(choice: Choice) -> AbstractContextManager[Executor | None]:
    """Where evaluations run; ``None`` for this process, where each is filed before the next begins."""
    return nullcontext() if choice.executor == "serial" else choice.open(tell=say)


def say(line: str) -> None:
    """A line for people, on standard error."""
    print(line, file=sys.stderr, flush=True)


def _progress(step: Step | None, text: str, share: float) -> None:
    report_progress(text, share)
    if step is not None and not sys.stderr.isatty():
        say(text)


def planned(title: str, plan: Table, options: Mapping[str, Any]) -> Report | None:
    """Show a plan before the work begins; the report itself, where only the plan is asked for.

    Args:
        title: Of the command.
        plan: What it is going to do.
        options: Its keys.
    """
    if options["plan_only"]:
        return Report(f"{title}, plan only", [plan], data={"plan": plan.to_dict()})
    if options["format"] != "json":
        Report("", [plan]).print()
    return None


def result_report(title: str, found: SearchResult, folder: Path, tables: list[Table]) -> Report:
    """What a finished search prints."""
    spec = found.spec
    changes = [
        ["depths", str(list(found.start.depths)), str(list(spec.depths))],
        ["widths", str(list(found.start.widths)), str(list(spec.widths))],
        ["resolution", str(found.start.resolution), str(spec.resolution)],
    ]
    tables = [*tables, path_table(found), Table("Network", ["", "start", "result"], changes)]
    cost = macs(spec)
    data = {
        "spec": spec.to_dict(), "macs": cost, "params": params(spec), "budget": found.schedule.target,
        "deviation": cost / found.schedule.target - 1, "steps": len(found.steps), "evaluated": found.evaluated,
        "moves": [s.chosen[0].move for s in found.steps], "message": found.message,
    }  # fmt: skip
    lines = [found.message] if found.message else []
    return Report(
        title, tables, data=data, lines=lines, files=[folder / "spec.json", folder / FOLDER / "journal.jsonl"]
    )


def run(cfg: Any) -> Report:
    """Do what ``greedy-enlarge search`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If it cannot succeed.
    """
    options = plain(cfg)
    spec, settings = read_spec(options["spec"]), make_settings(options)
    plan = plan_table(spec, options["budget"], settings)
    if (only := planned("greedy-enlarge search", plan, options)) is not None:
        return only
    folder = run_dir()
    found, _ = execute(options, folder)
    return result_report("greedy-enlarge search", found, folder, [])
