"""What a search decided, from its decision log, with pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from effkit.cli import run_dir
from effkit.errors import UserError
from effkit.report import Report, Table
from greedy_enlarge.commands.build import plain
from greedy_enlarge.commands.resume import read_settings
from greedy_enlarge.commands.search import FOLDER
from greedy_enlarge.families import macs, params, stage_shares
from greedy_enlarge.families.scaling import scale
from greedy_enlarge.plots.path import draw_path, draw_ranking
from greedy_enlarge.search.greedy import DECISIONS
from greedy_enlarge.spec import ArchSpec

__all__ = ["read_decisions", "run"]


def read_decisions(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Heading and steps of a decision log.

    Raises:
        UserError: If there is none yet.
    """
    file = folder / FOLDER / DECISIONS
    if not file.is_file():
        raise UserError(f"run={str(folder)!r} has decided nothing yet: go on with it, greedy-enlarge resume run=RUN")
    head, *steps = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return head, steps


def _chosen(step: dict[str, Any]) -> ArchSpec:
    return ArchSpec.from_dict(step["candidates"][0]["spec"])


def run(cfg: Any) -> Report:
    """Do what ``greedy-enlarge report`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If the run is no search, or has decided nothing yet.
    """
    folder, options = read_settings(plain(cfg)["run"])
    head, steps = read_decisions(folder)
    path = [ArchSpec.from_dict(head["start"]), *map(_chosen, steps)]
    rows: list[list[Any]] = []
    for step in steps:
        for place, c in enumerate(step["candidates"], 1):
            mean = sum(c["scores"]) / len(c["scores"])
            tied = "tied" if c["move"] in step["tie_set"] else ""
            rows.append([step["step"], place, c["move"], c["macs"], round(100 * c["deviation"], 2), mean, tied])
    columns = ["step", "place", "move", "MACs", "off by %", "mean score", ""]
    note = "Scores are those that selected: the winner's is too high by what luck gave it. Fresh seeds tell."
    tables = [Table("Candidates of each step", columns, rows, note), _baselines(path[0], path[-1])]
    names = ["stem", *(f"stage {i + 1}" for i in range(path[0].stages)), "head"]
    out = run_dir()
    labels = ["start", *(s["chosen"][0]["move"] for s in steps)]
    files = [draw_path([stage_shares(p).macs for p in path], names, labels, out / "path.png")]
    if steps:
        ranked = [[(c["move"], c["scores"], c["move"] in s["tie_set"]) for c in s["candidates"]] for s in steps]
        files.append(draw_ranking(ranked, out / "ranking.png"))
    data = {"spec": path[-1].to_dict(), "macs": macs(path[-1]), "steps": len(steps), "budget": options["budget"]}
    return Report("greedy-enlarge report", tables, data=data, files=files)


def _baselines(start: ArchSpec, found: ArchSpec) -> Table:
    """The search's network beside uniformly scaled ones of its MACs."""
    budget = macs(found)
    rows: list[list[Any]] = [["searched", budget, params(found), *_sizes(found)]]
    for method in ("compound", "fast"):
        try:
            net = scale(start, budget, method)
        except UserError:  # not every network can be met by rounding
            rows.append([f"{method}: no network within 1 %", None, None, "", "", None])
            continue
        rows.append([method, macs(net), params(net), *_sizes(net)])
    return Table("Beside uniform scaling", ["network", "MACs", "params", "depths", "widths", "resolution"], rows)


def _sizes(spec: ArchSpec) -> list[Any]:
    return [str(list(spec.depths)), str(list(spec.widths)), spec.resolution]
