"""What racing and inheritance save, and how often they pick what training every candidate to the end picks."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effkit.arguments import renamed
from effkit.cli import run_dir
from effkit.executors import Choice
from effkit.outputs import check_output_file
from effkit.report import Report, Table
from effkit.results import ResultRow, append_csv, stamp
from greedy_enlarge.commands.build import make_racing, plain
from greedy_enlarge.commands.fresh import whole
from greedy_enlarge.commands.search import open_executor, say
from greedy_enlarge.search.greedy import Settings, search
from greedy_enlarge.search.journal import FILE, Journal, read_records
from greedy_enlarge.search.recording import Recorded
from greedy_enlarge.search.rules import mean_score, space_of
from greedy_enlarge.search.savings import Savings, pick, savings_on_table
from greedy_enlarge.search.tables import read_recorded
from greedy_enlarge.training.proxy import ProxyTrain

__all__ = ["run", "savings_of_searches"]

WAY = "racing and inheritance"


def savings_of_searches(table: Recorded, options: Mapping[str, Any], folder: Path) -> Savings:
    """Real searches in the table's space, each step held against the table's pick at the same network.

    Args:
        table: What every network reaches from scratch.
        options: The config's keys.
        folder: Gets a journal a search; one that is there is gone on with.

    Raises:
        UserError: If a value does not fit.
    """
    space, score = space_of(table), mean_score(table)
    full, about = table.samples[-1], table.about["evaluator"]
    how = {key: about[key] for key in ("data", "epochs", "optimizer", "label_smoothing", "calibration", "ema")}
    how |= {"inherits": True, "device": options["device"], "threads": options["threads"]}
    schedule = space.schedule
    settings = Settings(
        steps=schedule.steps, delta=schedule.delta, delta_final=schedule.delta_final, moves=space.moves,
        repeats=table.repeats, racing=make_racing(options["racing"]), seed=options["seed"],
    )  # fmt: skip
    choice = Choice.from_config(options, folder / "workers")
    steps = same = tied = spent = everything = 0
    losses = []
    for number in range(options["searches"]):
        own = folder / f"search-{number}"
        evaluator = ProxyTrain.for_search(space.spec, folder=str(own / "states"), **how)
        evaluator.check_samples(options["racing"]["samples"])
        config = {"table": table.about["sha256"], "racing": options["racing"], "seed": options["seed"] + number}
        with Journal.open(own, config, say) as journal, open_executor(choice) as executor:
            found = search(
                space.spec, schedule.target, evaluator, dataclasses.replace(settings, seed=config["seed"]),
                executor=executor, journal=journal, progress=lambda step, text, share: say(text) if step else None,
            )  # fmt: skip
        records = read_records(own / FILE)[0]
        spent += sum(int(r["result"]["cost"].get("samples", 0)) for r in records if r["kind"] == "result")
        for step in found.steps:
            candidates = [c.spec for c in step.proposals[0].candidates]
            everything += len(candidates) * table.repeats * full
            if len(candidates) < 2:
                continue
            order, tie_set = pick(table, candidates, full, range(table.repeats))
            chosen = step.chosen[0].spec
            steps, same, tied = steps + 1, same + (chosen == order[0]), tied + (chosen in tie_set)
            losses.append(score(order[0]) - score(chosen))
    way = f"{WAY} {' '.join(map(str, settings.racing.samples if settings.racing else ()))}"
    return Savings(way, steps, same, tied, spent / everything, statistics.fmean(losses))


def run(cfg: Any) -> Report:
    """Do what ``greedy-enlarge savings`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value does not fit, or the table cannot be read.
    """
    options = plain(cfg)
    searches = whole("searches", options["searches"], 0)
    csv = check_output_file("csv", options["csv"], [".csv"], appends=True) if options["csv"] else None
    with renamed({"evaluator.path": "path"}):
        table = read_recorded(options["path"])
    folder = run_dir()
    found = [(f"table {Path(str(options['path'])).stem}", s) for s in savings_on_table(table)]
    if searches:
        found.append(("real searches", savings_of_searches(table, options, folder)))
    rows: list[list[Any]] = []
    results: list[ResultRow] = []
    for case, s in found:
        same, tied = s.same / s.steps, s.tied / s.steps
        rows.append([case, s.way, s.steps, *(round(100 * share, 1) for share in (same, tied, s.share)), 100 * s.loss])
        figures = [
            ("same_pick", "share", same),
            ("pick_in_tie_set", "share", tied),
            ("samples_over_everything", "x", s.share),
            ("loss", "points", 100 * s.loss),
        ]
        more: dict[str, Any] = {"rounds": s.steps, "note": str(table.about["command"]), **stamp()}
        for metric, unit, value in figures:
            what = (case, s.way, "pick", "fp32", "steps", s.steps, metric, unit, value)
            results.append(ResultRow("greedy-enlarge", *what, **more))
    columns = ["on", "way", "steps", "same pick, %", "in its tie set, %", "samples, % of everything", "loss, points"]
    note = (
        "Held against training every candidate to the end; loss: how far its picks lie below, in recorded accuracy. "
        "Picks of single trainings show what other seeds alone change."
    )
    tables = [Table("Cheaper ways to pick", columns, rows, note)]
    data = {"ways": [{"on": case, **dataclasses.asdict(s)} for case, s in found]}
    return Report(
        "greedy-enlarge savings", tables, data=data, files=[append_csv(csv or folder / "savings.csv", results)]
    )
