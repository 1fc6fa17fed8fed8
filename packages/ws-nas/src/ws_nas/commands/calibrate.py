"""A cheap score repaired by stand-alone results: for use, or measured against the truth of all."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from effkit.arguments import renamed
from effkit.cli import run_dir
from effkit.device import seed_everything, set_threads
from effkit.errors import UserError
from effkit.report import Report, Table, write_text
from ws_nas.commands.build import plain
from ws_nas.commands.scored import Source, open_source
from ws_nas.commands.tables import open_table, text, whole
from ws_nas.meters.calibration import CalibratedRanking, calibrate_ranking
from ws_nas.meters.repair import Repair, repair
from ws_nas.meters.tables.benchmark import TabularBenchmark
from ws_nas.meters.tables.columns import Accuracy
from ws_nas.plots.calibration import draw_repair
from ws_nas.spaces.space import Genotype

__all__ = ["run"]

_LISTED = 50_000  # genotypes up to which a supernet scores the whole space


def run(cfg: Any) -> Report:
    """Do what ``ws-nas calibrate`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value does not fit.
    """
    options = plain(cfg)
    set_threads(options["threads"])
    seed_everything(options["seed"])
    with renamed({"metric": "truth"}):
        return _run(options, run_dir())


def _run(options: Mapping[str, Any], folder: Path) -> Report:
    source = open_source(options)
    table = open_table("table", options["table"], source.space)
    metric = text("truth", options["truth"])
    if not issubclass(table.kind(metric), Accuracy):
        raise UserError(f"truth={metric!r} is no accuracy of the table")
    if source.table is not None and source.table.path == table.path and source.column in (metric, *table.seeds(metric)):
        raise UserError(f"scores={source.column!r} is what truth={metric!r} is made of: there is nothing to repair")
    if options["known"] is None:
        return _use(source, table, metric, options, folder)
    return _measure(source, table, metric, options, folder)


def _use(
    source: Source, table: TabularBenchmark, metric: str, options: Mapping[str, Any], folder: Path
) -> Report:  # fmt: skip
    """All results of the table, to rank what has a score."""
    if source.table is not None:
        genotypes = list(source.table)
    elif source.space.size() <= _LISTED:
        genotypes = list(source.space)
    else:
        raise UserError(f"space={source.space.name} has {source.space.size():,} genotypes, too many to score each")
    truth = table.truth(metric)
    mean = truth.mean(0) if truth.ndim == 2 else truth
    q, _ = source.scores(genotypes)
    how: dict[str, Any] = {"model": options["model"], "folds": options["folds"], "seed": options["seed"]}
    found = calibrate_ranking(q, source.space, genotypes, dict(zip(table, mean.tolist(), strict=True)), **how)
    file = _ranking_csv(source, genotypes, q, found, folder)
    best = [[source.space.str(genotypes[i]), q[i], found.predicted[i]] for i in found.order()[:10]]
    tables = [
        _tau_table(found),
        Table("Best by the calibrated ranking", ["genotype", source.name, "predicted rank, 0 to 1"], best),
    ]
    data = {
        "tau": found.cross_validated_tau, "ci_low": found.interval[0], "ci_high": found.interval[1],
        "raw_tau": found.raw_tau, "known": int(found.known.sum()), "n": len(genotypes), "model": found.model,
    }  # fmt: skip
    return Report("ws-nas calibrate", tables, data=data, files=[file])


def _tau_table(found: CalibratedRanking) -> Table:
    rows: list[list[Any]] = [
        ["raw score", found.raw_tau, None, None],
        ["calibrated, each result left out in turn", found.cross_validated_tau, *found.interval],
    ]
    note = f"Over the {int(found.known.sum())} architectures whose stand-alone result is known."
    return Table("Rank correlation", ["ranked by", "tau-b", "95 % from", "to"], rows, note)


def _measure(
    source: Source, table: TabularBenchmark, metric: str, options: Mapping[str, Any], folder: Path
) -> Report:  # fmt: skip
    """Some results drawn at random, the rest to compare with."""
    draws = whole("draws", options["draws"], 1)
    known = whole("known", options["known"], 1)
    genotypes = list(table)
    truth = table.truth(metric, genotypes)
    mean = truth.mean(0) if truth.ndim == 2 else truth
    q, _ = source.scores(genotypes)
    found = repair(
        q, source.space, genotypes, mean, known=known, draws=draws, model=options["model"], folds=options["folds"],
        seed=options["seed"],
    )  # fmt: skip
    rows: list[list[Any]] = [
        [i, a, b, b - a, c] for i, (a, b, c) in enumerate(zip(found.raw, found.calibrated, found.foretold, strict=True))
    ]
    rows.append(["mean", found.raw_mean, found.calibrated_mean, found.gain, float(np.mean(found.foretold))])
    note = _said(found)
    columns = ["draw", "raw tau-b", "calibrated tau-b", "gain", "foretold by cross-validation"]
    tables = [Table(f"{known} stand-alone results, the other architectures ranked", columns, rows, note)]
    picture = draw_repair(found, folder / "calibration.png", f"{source.name} on {source.space.name}")
    data = {
        "tau": found.calibrated_mean, "raw_tau": found.raw_mean, "gain": found.gain, "ci_low": found.gain_interval[0],
        "ci_high": found.gain_interval[1], "known": known, "draws": draws, "n": len(genotypes),
        "model": options["model"], "taus": list(found.calibrated), "raw_taus": list(found.raw),
    }  # fmt: skip
    return Report("ws-nas calibrate", tables, data=data, files=[picture])


def _said(found: Repair) -> str:
    low, high = found.gain_interval
    return f"Gain {found.gain:+.3f}, 95 % interval {low:+.3f} to {high:+.3f} (bootstrap over architectures and draws)."


def _ranking_csv(
    source: Source, genotypes: list[Genotype], q: np.ndarray, found: CalibratedRanking, folder: Path
) -> Path:  # fmt: skip
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["genotype", "score", "predicted_rank", "known"])
    for i in found.order():
        row = [source.space.str(genotypes[i]), float(q[i]), float(found.predicted[i]), int(found.known[i])]
        writer.writerow(row)
    return write_text(folder / "ranking.csv", out.getvalue())
