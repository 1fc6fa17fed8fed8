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
from ws_nas.families.base import Family, NotFinite
from ws_nas.families.individual import Individual
from ws_nas.families.numbers import number
from ws_nas.families.registry import FAMILIES
from ws_nas.meters.ceiling import structural_baselines
from ws_nas.meters.gap import ONE_SCALE
from ws_nas.meters.ranking import RankingGap, ranking_gap
from ws_nas.meters.report import GapReport
from ws_nas.meters.tables.columns import Accuracy
from ws_nas.meters.value import value_gap
from ws_nas.ops.ranks import kendall_tau
from ws_nas.plots.ranking import draw_taus, draw_taus_by_epoch
from ws_nas.plots.search import draw_derived
from ws_nas.spaces.space import Genotype, Space
from ws_nas.training.pictures import Scoring

__all__ = ["run"]

OWN = ("families", "options", "table", "truth", "count", "ceiling", "resamples", "taus_every")
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


def ranks(family: Family) -> bool:
    """Whether a family has scores of networks other than those it trained alone."""
    return family.inherits and not isinstance(family, Individual)


def inherited(scoring: Scoring, genotypes: list[Genotype]) -> tuple[np.ndarray, np.ndarray]:
    """Scores, larger is better, and accuracies in percent."""
    found = scoring.scores(genotypes)
    accuracy = 100 * found.accuracy.numpy()
    return (accuracy if scoring.metric == "accuracy" else -found.loss.numpy()), accuracy


def _measured(one: dict[str, Any], folder: Path, truth: _Truth, options: Mapping[str, Any]) -> dict[str, Any]:
    """Train one family, and measure it."""
    every, course = options["taus_every"], {}

    def watch(epoch: int, scoring: Scoring) -> None:
        if (epoch % every == 0 or epoch == one["trainer"]["max_epochs"]) and ranks(scoring.family):
            course[epoch] = kendall_tau(inherited(scoring, truth.genotypes)[0], truth.mean)

    trained = fit(one, folder, None if every is None else watch)
    family, scoring = trained.family, trained.scoring
    genotype = family.derived()
    alone = truth.of(genotype)
    cost = truth.space.cost(genotype)
    entry: dict[str, Any] = {
        "genotype": truth.space.str(genotype), "params": cost.params, "macs": cost.macs, "stand_alone": alone,
        "regret": None if alone is None else truth.best - alone,
        "seconds": trained.metrics["seconds"], "epochs": trained.metrics["epochs"],
    }  # fmt: skip
    m3 = discretization_of(family, scoring.batches, scoring.calibration)
    m5 = hypergradient_of(family)
    if not ranks(family):
        return {**entry, "not_applicable": f"{family.name} {NO_SCORES}", "m3": m3, "m5": m5}
    q, accuracy = inherited(scoring, truth.genotypes)
    m2 = truth.ranked(q, options)
    report = GapReport(
        truth.space.name, f"{family.name}, inherited {scoring.metric}", truth.metric, m2,
        value_gap(accuracy, truth.mean, alike=True), m3, ONE_SCALE, m5,
    )  # fmt: skip
    return {**entry, "report": report, **({"tau_by_epoch": course} if course else {})}


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
        return {k: v if isinstance(v, str | int | float | dict | None) else vars(v) for k, v in kept.items()}
    return {**kept, **report.to_dict()}


def _front(entries: dict[str, dict[str, Any]], truth: _Truth, title: str) -> Path:
    """Where families have come to, among the architectures that they are held against."""
    costs = [truth.space.cost(genotype) for genotype in truth.genotypes]
    derived = {
        name: ({"MACs": float(entry["macs"]), "parameters": float(entry["params"])}, float(entry["stand_alone"]))
        for name, entry in entries.items()
    }
    all_costs = {"MACs": [c.macs for c in costs], "parameters": [c.params for c in costs]}
    return draw_derived(all_costs, truth.mean.tolist(), derived, run_dir() / "front.png", title)


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
    if options["taus_every"] is not None:
        number(options["taus_every"], "taus_every", least=1, whole=True)
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
    title = f"Families on {truth.space.name}"
    if rankings:
        files.append(draw_taus(rankings, run_dir() / "taus.png", title))
    courses = {name: entry["tau_by_epoch"] for name, entry in entries.items() if "tau_by_epoch" in entry}
    if courses:
        files.append(draw_taus_by_epoch(courses, run_dir() / "taus-by-epoch.png", title))
    known = {name: entry for name, entry in entries.items() if entry.get("stand_alone") is not None}
    if known:
        files.append(_front(known, truth, title))
    data = {
        "space": truth.space.name, "truth": truth.metric, "n": len(truth.genotypes), "ceiling": truth.ceiling,
        "baselines": truth.baselines, "families": {name: _plain_entry(entry) for name, entry in entries.items()},
        "left_out": left,
    }  # fmt: skip
    return Report("ws-nas compare", _tables(entries, left, truth), data=data, files=files, exit_code=int(failed))
