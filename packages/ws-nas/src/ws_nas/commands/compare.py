"""All families on one space, with one budget and one truth: a table of the five meters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from effkit.arguments import renamed
from effkit.cli import compose, run_dir
from effkit.device import seed_everything, set_threads
from effkit.errors import UserError, choose, written
from effkit.progress import report_progress
from effkit.report import Report, Table, write_json
from ws_nas.commands.build import make_space, plain
from ws_nas.commands.gap import checked_ceiling
from ws_nas.commands.mixture import discretization_of, hypergradient_of
from ws_nas.commands.tables import chosen_genotypes, open_table, text
from ws_nas.commands.train import fit, open_family
from ws_nas.families.base import NotFinite
from ws_nas.families.individual import Individual
from ws_nas.families.registry import FAMILIES
from ws_nas.meters.ceiling import structural_baselines
from ws_nas.meters.gap import ONE_SCALE
from ws_nas.meters.ranking import RankingGap, ranking_gap
from ws_nas.meters.report import GapReport
from ws_nas.meters.tables.columns import Accuracy
from ws_nas.meters.value import value_gap
from ws_nas.plots.ranking import draw_taus
from ws_nas.spaces.space import Genotype, Space

__all__ = ["run"]

OWN = ("families", "options", "table", "truth", "count", "ceiling", "resamples")
NO_SCORES = "leaves no weights to score others by"


class _Truth:
    """What all families are held against."""

    def __init__(self, options: Mapping[str, Any], space: Space) -> None:
        self.space, self.table = space, open_table("table", options["table"], space)
        self.metric = text("truth", options["truth"])
        if not issubclass(self.table.kind(self.metric), Accuracy):
            raise UserError(f"truth={self.metric!r} is no accuracy of the table")
        self.ceiling = checked_ceiling(options["ceiling"])
        if self.ceiling is None and len(self.table.seeds(self.metric)) < 2:
            raise UserError(
                f"truth={self.metric!r} has one seed: a tau without a noise ceiling is no evidence; give ceiling=, "
                "tau-b between seeds, where it is known"
            )
        self.genotypes = chosen_genotypes(self.table, options["count"], options["seed"])
        self.rows = self.table.truth(self.metric, self.genotypes)
        self.mean = self.rows.mean(0) if self.rows.ndim == 2 else self.rows
        self.baselines = structural_baselines(space, self.genotypes, self.mean)
        # Too few architectures, or a bootstrap that cannot be, is told before any training.
        self.ceiling = self.ranked(self.mean, options).ceiling
        self.best = max(self.of(genotype) or 0.0 for genotype in self.table)

    def of(self, genotype: Genotype) -> float | None:
        """A genotype's accuracy when trained alone; ``None`` where the table has no such row."""
        if genotype not in self.table:
            return None
        return float(np.mean(self.table.truth(self.metric, [genotype])))

    def ranked(self, q: np.ndarray, options: Mapping[str, Any]) -> RankingGap:
        """M2 of some scores."""
        how = {"resamples": options["resamples"], "seed": options["seed"]}
        return ranking_gap(q, self.rows, ceiling=self.ceiling, baselines=self.baselines, **how)


def _trainings(options: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The config of ``ws-nas train`` for each family, and why some have none."""
    names, shared = options["families"], {k: v for k, v in options.items() if k not in OWN}
    if names is not None and (not isinstance(names, list) or not names):
        raise UserError(f"families={written(names)} must be a list of names, or null")
    told = options["options"]
    if not isinstance(told, dict):
        raise UserError(f"options={written(told)} must be a mapping of families' options")
    for name in told:
        choose("options", name, list(FAMILIES))
    found, left = {}, {}
    for name in FAMILIES if names is None else names:
        choose("families", name, list(FAMILIES))
        if name in found:
            raise UserError(f"families names {name} twice")
        train: Any = compose("ws-nas", "ws_nas.configs", "train", [f"family={name}"])
        family = {**plain(train)["family"], **(told.get(name) or {})}
        one = {**shared, "family": family, "resume": None, "resume_anyway": False}
        keys = {f"family.{key}": f"options.{name}.{key}" for key in family}
        try:
            with renamed({"family": "families", **keys}):
                open_family(one)
        except UserError as error:  # a family for other spaces; said at once where it was named
            if names is not None or name in told:
                raise
            left[name] = str(error)
            continue
        found[name] = one
    if not found:
        raise UserError(next(iter(left.values())))  # what stops all of them is no family's fault
    return found, left


def _measured(one: dict[str, Any], folder: Path, truth: _Truth, options: Mapping[str, Any]) -> dict[str, Any]:
    """Train one family, and measure it."""
    trained = fit(one, folder)
    family, scoring = trained.family, trained.scoring
    genotype = family.derived()
    alone = truth.of(genotype)
    entry: dict[str, Any] = {
        "genotype": truth.space.str(genotype), "stand_alone": alone,
        "regret": None if alone is None else truth.best - alone,
        "seconds": trained.metrics["seconds"], "epochs": trained.metrics["epochs"],
    }  # fmt: skip
    m3 = discretization_of(family, scoring.batches, scoring.calibration)
    m5 = hypergradient_of(family)
    if not family.inherits or isinstance(family, Individual):
        return {**entry, "not_applicable": f"{family.name} {NO_SCORES}", "m3": m3, "m5": m5}
    scores = scoring.scores(truth.genotypes)
    accuracy = 100 * scores.accuracy.numpy()
    m2 = truth.ranked(accuracy if scoring.metric == "accuracy" else -scores.loss.numpy(), options)
    report = GapReport(
        truth.space.name, f"{family.name}, inherited {scoring.metric}", truth.metric, m2,
        value_gap(accuracy, truth.mean, alike=True), m3, ONE_SCALE, m5,
    )  # fmt: skip
    return {**entry, "report": report}


def _row(name: str, entry: dict[str, Any]) -> list[Any]:
    report: GapReport | None = entry.get("report")
    if report is None:
        said = entry.get("not_applicable", "")
        figures: list[Any] = [None, None, None, None]
        m3, m5 = entry.get("m3"), entry.get("m5")
    else:
        m1, m2, said = report.value, report.ranking, ""
        figures = [None if isinstance(m1, str) else m1.mean, m2.tau, *m2.interval]
        m3, m5 = report.discretization, report.hypergradient
    notes = [said, *(f"M3: {x}" for x in (m3,) if isinstance(x, str)), *(f"M5: {x}" for x in (m5,) if x)]
    gap = None if m3 is None or isinstance(m3, str) else m3.gap
    shown = [entry.get("genotype"), entry.get("stand_alone"), entry.get("regret"), *figures, gap, entry.get("seconds")]
    return [name, *shown, "; ".join(note for note in notes if note)]


def _tables(entries: dict[str, dict[str, Any]], left: dict[str, str], truth: _Truth) -> list[Table]:
    columns = [
        "family", "derived", "alone, %", "regret", "M1, points", "M2: tau-b", "95 % from", "to", "M3", "seconds",
        "not applicable",
    ]  # fmt: skip
    rows = [_row(name, entry) for name, entry in entries.items()]
    rows += [[name, *[None] * 9, reason] for name, reason in left.items()]
    note = f"M2 over {len(truth.genotypes)} architectures against {truth.metric}. M4: {ONE_SCALE}."
    baselines: list[list[Any]] = [[f"counting {name}", tau] for name, tau in truth.baselines.items()]
    baselines.append(["one seed of the truth against another: the noise ceiling", truth.ceiling])
    return [
        Table(f"Families on {truth.space.name}", columns, rows, note),
        Table("Beside them", ["ranked by", "tau-b"], baselines),
    ]


def _plain_entry(entry: dict[str, Any]) -> dict[str, Any]:
    report: GapReport | None = entry.get("report")
    kept = {k: v for k, v in entry.items() if k != "report"}
    if report is None:
        return {k: v if isinstance(v, str | int | float | type(None)) else vars(v) for k, v in kept.items()}
    return {**kept, **report.to_dict()}


def run(cfg: Any) -> Report:
    """Do what ``ws-nas compare`` does.

    Args:
        cfg: The composed config.

    Returns:
        A row a family, beside the noise ceiling and what counting ranks; exit code 1 if a training failed.

    Raises:
        UserError: If a value does not fit, or a family that was named does not fit the space.
    """
    options = plain(cfg)
    set_threads(options["threads"])
    seed_everything(options["seed"])
    with renamed({"metric": "truth", "n": "count"}):
        truth = _Truth(options, make_space(options["space"]))
        trainings, left = _trainings(options)
        entries: dict[str, dict[str, Any]] = {}
        failed = False
        for i, (name, one) in enumerate(trainings.items()):
            report_progress(name, i / len(trainings))
            try:
                entries[name] = _measured(one, run_dir() / name, truth, options)
            except NotFinite as error:  # of one training: the others still say something
                entries[name], failed = {"not_applicable": f"failed: {error}"}, True
            write_json(run_dir() / name / "meters.json", _plain_entry(entries[name]))
    rankings = {name: entry["report"].ranking for name, entry in entries.items() if "report" in entry}
    files = []
    if rankings:
        files.append(draw_taus(rankings, run_dir() / "taus.png", f"Families on {truth.space.name}"))
    data = {
        "space": truth.space.name, "truth": truth.metric, "n": len(truth.genotypes), "ceiling": truth.ceiling,
        "baselines": truth.baselines, "families": {name: _plain_entry(entry) for name, entry in entries.items()},
        "left_out": left,
    }  # fmt: skip
    return Report("ws-nas compare", _tables(entries, left, truth), data=data, files=files, exit_code=int(failed))
