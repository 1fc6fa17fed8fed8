"""The five meters of a trained supernet, or of a column of a table, against stand-alone accuracies."""

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
from effkit.errors import UserError, written
from effkit.report import Report, write_text
from ws_nas.commands.build import plain
from ws_nas.commands.mixture import discretization_of, hypergradient_of
from ws_nas.commands.scored import Source, open_source
from ws_nas.commands.tables import chosen_genotypes, open_table, text
from ws_nas.meters.ceiling import structural_baselines
from ws_nas.meters.discretization import DiscretizationGap
from ws_nas.meters.gap import NO_HYPERGRADIENT, NO_MIXTURE, ONE_SCALE
from ws_nas.meters.ranking import ranking_gap
from ws_nas.meters.report import GapReport
from ws_nas.meters.tables.benchmark import TabularBenchmark
from ws_nas.meters.tables.columns import Accuracy, TestAccuracy
from ws_nas.meters.value import ValueGap, value_gap
from ws_nas.ops.ranks import kendall_tau
from ws_nas.plots.ranking import draw_taus, draw_top
from ws_nas.plots.scatter import draw_scatter
from ws_nas.spaces.cell_201 import NASBench201Space, is_connected
from ws_nas.spaces.space import Genotype

__all__ = ["checked_ceiling", "measure", "run"]


def measure(options: Mapping[str, Any], folder: Path) -> tuple[GapReport, list[Path]]:
    """Measure, and write the report with its pictures and figures.

    Args:
        options: The keys of ``ws-nas gap``.
        folder: Gets ``gap.json``, ``gap.md``, ``gap.html``, ``scores.csv`` and the pictures.

    Raises:
        UserError: If a value does not fit, or there is no noise ceiling.
    """
    source = open_source(options)
    table = open_table("table", options["table"], source.space)
    metric = text("truth", options["truth"])
    kind = table.kind(metric)
    if not issubclass(kind, Accuracy):
        raise UserError(f"truth={metric!r} is no accuracy of the table")
    same = source.table is not None and source.table.path == table.path
    if same and source.column in (metric, *table.seeds(metric)):
        raise UserError(
            f"scores={source.column!r} is what truth={metric!r} is made of: a score is held against another"
        )
    ceiling = checked_ceiling(options["ceiling"])
    seeds = table.seeds(metric)
    if ceiling is None and len(seeds) < 2:
        raise UserError(
            f"truth={metric!r} has one seed: a tau without a noise ceiling is no evidence; give ceiling=, tau-b "
            "between seeds, where it is known"
        )
    genotypes = chosen_genotypes(table, options["count"], options["seed"])
    s = table.truth(metric, genotypes)
    q, accuracies = source.scores(genotypes)
    mean = s.mean(0) if s.ndim == 2 else s
    m2 = ranking_gap(
        q, s, ceiling=ceiling, baselines=structural_baselines(source.space, genotypes, mean),
        resamples=options["resamples"], seed=options["seed"],
    )  # fmt: skip
    notes = _notes(options, table, metric, genotypes, q, mean)
    name = f"{metric}, mean of {len(seeds)} seeds" if seeds else metric
    m3: DiscretizationGap | str = NO_MIXTURE
    m5 = NO_HYPERGRADIENT
    if source.scoring is not None:
        m3 = discretization_of(source.family, source.scoring.batches, source.scoring.calibration)
        m5 = hypergradient_of(source.family)
    m1 = _value(source, table, metric, accuracies, mean)
    report = GapReport(source.space.name, source.name, name, m2, m1, m3, ONE_SCALE, m5, tuple(notes))
    pictures = [
        draw_scatter(report, q.tolist(), mean.tolist(), folder / "scatter.png"),
        draw_taus({source.name: m2}, folder / "taus.png", f"Rank correlation on {source.space.name}"),
        draw_top({source.name: m2}, folder / "top.png", "Rank correlation among the best"),
    ]
    return report, [*report.write(folder, pictures), _scores_csv(source, genotypes, q, s, folder), *pictures]


def checked_ceiling(value: Any) -> float | None:
    """The noise ceiling that the key ``ceiling`` gives, if any.

    Raises:
        UserError: If it is no rank correlation above 0.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise UserError(f"ceiling={written(value)} must be a rank correlation above 0 and at most 1, or null")
    return float(value)


def _value(
    source: Source, table: TabularBenchmark, metric: str, accuracies: np.ndarray | None, mean: np.ndarray
) -> ValueGap | str:
    if accuracies is None:
        return f"{source.name} is no accuracy"
    if source.table is not None:
        own = source.table.columns[source.column]
        truth = table.columns[(table.seeds(metric) or [metric])[0]]
        assert isinstance(own, Accuracy)
        assert isinstance(truth, Accuracy)
        if own.dataset != truth.dataset:
            return f"accuracies of other data: {own.dataset} and {truth.dataset}"
    return value_gap(accuracies, mean, alike=source.table is None)


def _notes(
    options: Mapping[str, Any], table: TabularBenchmark, metric: str, genotypes: list[Genotype], q: np.ndarray,
    mean: np.ndarray,
) -> list[str]:  # fmt: skip
    notes = []
    if options["ceiling"] is not None:
        notes.append(f"the noise ceiling {options['ceiling']:g} was given, not measured on this table")
    if not issubclass(table.kind(metric), TestAccuracy):
        notes.append(f"the truth {metric} is a validation figure")
    if options["count"] is not None:
        notes.append(f"{len(genotypes)} of {len(table)} architectures, drawn at random (seed {options['seed']})")
    if isinstance(table.space, NASBench201Space):
        there = np.array([is_connected(g) for g in genotypes])
        if 1 < there.sum() < len(there):
            tau = kendall_tau(q[there], mean[there])
            notes.append(f"{int((~there).sum())} cells are not connected to their input; without them tau is {tau:.4f}")
    return notes


def _scores_csv(source: Source, genotypes: list[Genotype], q: np.ndarray, s: np.ndarray, folder: Path) -> Path:
    rows = s if s.ndim == 2 else s[None]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["genotype", "score", *(f"truth_{i}" for i in range(len(rows)))])
    for genotype, score, *truth in zip(genotypes, q.tolist(), *rows.tolist(), strict=True):
        writer.writerow([source.space.str(genotype), score, *truth])
    return write_text(folder / "scores.csv", out.getvalue())


def run(cfg: Any) -> Report:
    """Do what ``ws-nas gap`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value does not fit.
    """
    options = plain(cfg)
    set_threads(options["threads"])
    seed_everything(options["seed"])
    with renamed({"metric": "truth", "n": "count"}):
        report, files = measure(options, run_dir())
    return Report("ws-nas gap", report.tables(), data=report.to_dict(), files=files, lines=report.to_dict()["notes"])
