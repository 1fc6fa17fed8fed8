"""What a search decided, from its decision log, with pictures; and what fresh seeds make of it on the test split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from effkit.cli import run_dir
from effkit.device import resolve_device
from effkit.errors import UserError
from effkit.executors import Choice
from effkit.report import Report, Table
from greedy_enlarge.commands.build import make_settings, plain
from greedy_enlarge.commands.fresh import fresh_table, measure_fresh, whole
from greedy_enlarge.commands.resume import read_settings
from greedy_enlarge.commands.search import FOLDER
from greedy_enlarge.families import macs, params, stage_shares
from greedy_enlarge.plots.accuracy import Point, draw_accuracy
from greedy_enlarge.plots.path import draw_path, draw_ranking
from greedy_enlarge.plots.steps import draw_steps
from greedy_enlarge.search.baselines import baselines
from greedy_enlarge.search.greedy import DECISIONS
from greedy_enlarge.search.journal import FILE, read_records
from greedy_enlarge.search.moves import move_names
from greedy_enlarge.spec import ArchSpec

__all__ = ["read_decisions", "run", "step_costs"]


def read_decisions(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Heading and steps of a decision log.

    Raises:
        UserError: If there is none yet, or it is damaged.
    """
    file = folder / FOLDER / DECISIONS
    if not file.is_file():
        raise UserError(f"run={str(folder)!r} has decided nothing yet: go on with it, greedy-enlarge resume run=RUN")
    try:
        head, *steps = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise UserError(
            f"{file} is damaged ({' '.join(str(error).split())}): greedy-enlarge resume run=RUN writes it anew"
        ) from error
    return head, steps


def step_costs(folder: Path, steps: int) -> list[dict[str, float]]:
    """What each step took, the start's training as step 0: evaluations, training samples, seconds.

    Args:
        folder: Of the search.
        steps: How many there are.
    """
    found = [{"evaluations": 0.0, "samples": 0.0, "seconds": 0.0} for _ in range(steps + 1)]
    for record in read_records(folder / FOLDER / FILE)[0]:
        if record["kind"] == "result" and record.get("step", steps + 1) <= steps:
            own, cost = found[record["step"]], record["result"]["cost"]
            own["evaluations"] += 1
            for key in ("samples", "seconds"):
                own[key] += cost.get(key, 0)
    return found


def run(cfg: Any) -> Report:
    """Do what ``greedy-enlarge report`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If the run is no search, or has decided nothing yet; or a value does not fit.
    """
    given = plain(cfg)
    seeds = whole("seeds", given["seeds"], 0)
    whole("epochs", given["epochs"], 1), resolve_device(given["device"]), Choice.from_config(given)
    folder, options = read_settings(given["run"])
    head, steps = read_decisions(folder)
    path = [ArchSpec.from_dict(head["start"]), *(ArchSpec.from_dict(s["candidates"][0]["spec"]) for s in steps)]
    costs = step_costs(folder, len(steps))
    budget, settings = head["target"], make_settings(options)
    networks = {"searched": path[-1], **baselines(path[0], path[-1], budget, settings)}
    tables = [_candidates_table(steps), _steps_table(steps, costs), _networks_table(networks)]
    accuracies: dict[str, list[float]] = {}
    there = {"start": path[0], **{name: net for name, net in networks.items() if net is not None}}
    if seeds:
        accuracies = measure_fresh(there, options, given, folder)
        tables.append(fresh_table(there, accuracies, "searched"))
    files = _pictures(path, steps, costs, there, accuracies, run_dir())
    data = {
        "spec": path[-1].to_dict(), "macs": macs(path[-1]), "steps": len(steps), "budget": budget, "costs": costs,
        "networks": {name: net.to_dict() for name, net in there.items()}, "test_accuracy": accuracies,
    }  # fmt: skip
    return Report("greedy-enlarge report", tables, data=data, files=files)


def _pictures(
    path: list[ArchSpec], steps: list[dict[str, Any]], costs: list[dict[str, float]], networks: dict[str, ArchSpec],
    accuracies: dict[str, list[float]], out: Path,
) -> list[Path]:  # fmt: skip
    labels = ["start", *(s["chosen"][0]["move"] for s in steps)]
    parts = list(stage_shares(path[0]).names)
    files = [draw_path([stage_shares(p).macs for p in path], parts, labels, out / "path.png")]
    if not steps:
        return files
    ranked = [[(c["move"], c["scores"], c["move"] in s["tie_set"]) for c in s["candidates"]] for s in steps]
    files.append(draw_ranking(ranked, out / "ranking.png"))
    deviations = [100 * s["candidates"][0]["deviation"] for s in steps]
    start, end = path[0].coordinates(), path[-1].coordinates()
    ratios = {name: b / a for name, a, b in zip(move_names(path[0]), start, end, strict=True)}
    unit = "seconds" if any(c["seconds"] for c in costs) else "evaluations"
    files.append(draw_steps(deviations, [c[unit] for c in costs], unit, ratios, out / "steps.png"))
    if accuracies:
        points = [Point(name, macs(net), tuple(accuracies[name])) for name, net in networks.items()]
        files.append(draw_accuracy(points, out / "accuracy.png"))
    return files


def _candidates_table(steps: list[dict[str, Any]]) -> Table:
    rows: list[list[Any]] = []
    for step in steps:
        for place, c in enumerate(step["candidates"], 1):
            mean = sum(c["scores"]) / len(c["scores"])
            tied = "tied" if c["move"] in step["tie_set"] else ""
            rows.append([step["step"], place, c["move"], c["macs"], round(100 * c["deviation"], 2), mean, tied])
    columns = ["step", "place", "move", "MACs", "off by %", "mean score", ""]
    note = "Scores are those that selected: the winner's is too high by what luck gave it. Fresh seeds tell (seeds=5)."
    return Table("Candidates of each step", columns, rows, note)


def _steps_table(steps: list[dict[str, Any]], costs: list[dict[str, float]]) -> Table:
    rows: list[list[Any]] = [["start", "", *(round(v, 1) or None for v in costs[0].values())]]
    for step, cost in zip(steps, costs[1:], strict=True):
        rows.append([f"step {step['step']}", step["chosen"][0]["move"], *(round(v, 1) or None for v in cost.values())])
    return Table("What each step took", ["", "move", "evaluations", "training samples", "seconds"], rows)


def _networks_table(networks: dict[str, ArchSpec | None]) -> Table:
    """The search's network beside others of its MACs."""
    rows: list[list[Any]] = []
    for name, net in networks.items():
        if net is None:
            rows.append([f"{name}: no network so close", None, None, "", "", None])
            continue
        rows.append([name, macs(net), params(net), str(list(net.depths)), str(list(net.widths)), net.resolution])
    return Table("Beside uniform scaling", ["network", "MACs", "params", "depths", "widths", "resolution"], rows)
