"""Search of a space: by a trained supernet, or on a table; within limits, for one goal or two."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effkit.arguments import check_arguments, input_file, named_below
from effkit.cli import run_dir
from effkit.device import seed_everything, set_threads
from effkit.errors import UserError, choose
from effkit.report import Report, Table, write_json, write_text
from ws_nas.commands.build import plain
from ws_nas.commands.perturbation import derive_anew
from ws_nas.commands.scored import Source, open_source
from ws_nas.meters.tables.benchmark import TabularBenchmark
from ws_nas.meters.tables.latency import LatencyTable, latency_lookup
from ws_nas.plots.search import draw_front, draw_progress
from ws_nas.search import ConstrainedEvolution, RandomSearch, RegularizedEvolution
from ws_nas.search.ledger import SearchResult, Trial
from ws_nas.search.limits import COSTS, make_limits
from ws_nas.spaces.space import Genotype, Space

__all__ = ["execute", "run"]

STRATEGIES: dict[str, Any] = {
    "random": RandomSearch,
    "regularized": RegularizedEvolution,
    "constrained": ConstrainedEvolution,
}
PERTURBATION = "perturbation"
RESULT = "search.json"


def _latency(options: Mapping[str, Any], space: Space) -> LatencyTable | dict[Genotype, float] | None:
    """A file of parts, or a column of measured networks."""
    told = options["latency"]
    if told is None:
        return None
    if str(told).endswith(".json"):
        return LatencyTable.read(input_file("latency", told), space)
    path, mark, column = str(told).rpartition(":")
    if not mark:
        raise UserError(f"latency={told!r} must be a latency table (.json), or FILE.csv:COLUMN with measured networks")
    try:
        return latency_lookup(TabularBenchmark(input_file("latency", path), space), column)
    except UserError as error:
        raise UserError(str(error).replace(f"metric={column!r}", f"latency={told!r}")) from error


def _strategy(options: Mapping[str, Any], latency: LatencyTable | dict[Genotype, float] | None) -> Any:
    told = dict(options["strategy"])
    kind = STRATEGIES[choose("strategy.name", told.pop("name"), [*STRATEGIES, PERTURBATION])]
    known = [name for name in kind.__dataclass_fields__ if name != "latency"]
    for key in told:
        choose("strategy", key, known)
    check_arguments(kind, told, "strategy.")
    if told.get("trade") is not None:
        choose("strategy.trade", told["trade"], COSTS)
        if told["trade"] == "latency_ms" and latency is None:
            raise UserError("strategy.trade=latency_ms needs a latency table: give latency=")
    with named_below("strategy.", known):
        return kind(**told, latency=latency) if kind is ConstrainedEvolution else kind(**told)


def execute(options: Mapping[str, Any]) -> tuple[Source, SearchResult]:
    """Search by a plain config.

    Args:
        options: The keys of ``ws-nas search``.

    Raises:
        UserError: If a value does not fit, or nothing is within the limits.
    """
    source = open_source(options)
    space = source.space
    if options["strategy"]["name"] == PERTURBATION:
        return source, derive_anew(source, options)
    latency = _latency(options, space)
    strategy = _strategy(options, latency)
    limits = make_limits(space, {k: v for k, v in options["limit"].items() if v is not None}, latency)

    def score(genotypes: list[Genotype]) -> list[float]:
        found: list[float] = source.scores(genotypes)[0].tolist()
        return found

    return source, strategy.run(space, score, options["budget"], limits, options["seed"])


def run(cfg: Any) -> Report:
    """Do what ``ws-nas search`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value does not fit, or nothing is within the limits.
    """
    options = plain(cfg)
    set_threads(options["threads"])
    seed_everything(options["seed"])
    source, found = execute(options)
    space, folder, best = source.space, run_dir(), found.best
    cost = space.cost(best.genotype)
    data = {
        "space": space.name, "hash": space.hash, "genotype": space.str(best.genotype), "score": best.score,
        "scored by": source.name, "params": cost.params, "macs": cost.macs, "evaluations": len(found.history),
        "message": found.message, "front": [_plain(space, t) for t in found.front],
    }  # fmt: skip
    name = str(options["strategy"]["name"])
    title = f"{name} on {space.name}"
    files = [
        write_json(folder / RESULT, data),
        _history(space, found, folder),
        draw_progress({name: [t.score for t in found.history]}, folder / "progress.png", title),
    ]
    facts = [[key, value] for key, value in data.items() if key not in ("message", "front", "hash")]
    facts += [[key, value] for key, value in best.costs.items() if key not in data]
    tables = [Table("Best", ["", ""], facts, found.message)]
    if found.front:
        trade = str(options["strategy"]["trade"])
        rows = [[space.str(t.genotype), t.score, t.costs[trade]] for t in found.front]
        tables.append(Table(f"Front of score and {trade}", ["genotype", "score", trade], rows))
        points = [(t.costs[trade], t.score) for t in found.history]
        front = [(t.costs[trade], t.score) for t in found.front]
        files.append(draw_front(points, front, trade, folder / "front.png", title))
    return Report("ws-nas search", tables, data=data, files=files)


def _plain(space: Space, trial: Trial) -> dict[str, Any]:
    return {"genotype": space.str(trial.genotype), "score": trial.score, **trial.costs}


def _history(space: Space, found: SearchResult, folder: Path) -> Path:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = list(found.best.costs)
    writer.writerow(["genotype", "score", *names])
    for trial in found.history:
        writer.writerow([space.str(trial.genotype), trial.score, *(trial.costs[name] for name in names)])
    return write_text(folder / "history.csv", out.getvalue())
