"""Search rules beside the true optimum of a recorded table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from effkit.arguments import renamed
from effkit.cli import run_dir
from effkit.outputs import check_output_file
from effkit.report import Report, Table
from effkit.results import ResultRow, append_csv, stamp
from greedy_enlarge.commands.build import plain
from greedy_enlarge.plots.regret import draw_regret
from greedy_enlarge.search.rules import Outcome, compare_rules
from greedy_enlarge.search.tables import read_recorded

__all__ = ["regret_table", "run"]


def regret_table(found: list[Outcome], full: int) -> Table:
    """Rules with what they come to.

    Args:
        found: From :func:`~greedy_enlarge.search.rules.compare_rules`.
        full: Samples of one training.
    """
    rows: list[list[Any]] = []
    for o in found:
        net = o.spec
        sizes = ["", "", None] if net is None else [str(list(net.depths)), str(list(net.widths)), net.resolution]
        rows.append([o.rule, round(100 * o.score, 2), round(100 * o.regret, 2), round(o.samples / full, 1), *sizes])
    columns = ["rule", "accuracy, %", "regret, points", "trainings", "depths", "widths", "side"]
    note = "Accuracies are validation means over the table's repeats; trainings count samples, in units of a whole one."
    return Table("Rules on the recorded table", columns, rows, note)


def run(cfg: Any) -> Report:
    """Do what ``greedy-enlarge regret`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If the table cannot be read, or does not hold the whole of its space.
    """
    options = plain(cfg)
    csv = check_output_file("csv", options["csv"], [".csv"], appends=True) if options["csv"] else None
    with renamed({"evaluator.path": "path"}):
        table = read_recorded(options["path"])
    found, folder = compare_rules(table), run_dir()
    case = Path(str(options["path"])).stem
    more: dict[str, Any] = {"rounds": table.repeats, "note": str(table.about["command"]), **stamp()}
    rows = []
    full = table.samples[-1]
    for o in found:
        what = (case, o.rule, "regret", "fp32", "samples", o.samples)
        figures = [("accuracy", "share", o.score), ("regret", "points", 100 * o.regret)]
        figures += [("trainings", "of a whole one", o.samples / full)]
        rows += [ResultRow("greedy-enlarge", *what, *figure, **more) for figure in figures]
    files = [append_csv(csv or folder / "regret.csv", rows), draw_regret(found, folder / "regret.png")]
    data = {"rules": {o.rule: {"score": o.score, "regret": o.regret, "samples": o.samples} for o in found}}
    data |= {"about": {k: table.about[k] for k in ("command", "machine", "commit", "date", "sha256")}}
    return Report("greedy-enlarge regret", [regret_table(found, full)], data=data, files=files)
