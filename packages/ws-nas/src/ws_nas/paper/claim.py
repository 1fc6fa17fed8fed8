"""The laptop-scale claim: two supernets on the digits chain, held against all 81 networks trained alone.

Counts and known answers come out; both supernets learn, and rank all sub-networks, with the five meters beside seed
noise and beside counting parameters; every family runs. Which supernet ranks better, and what calibration with a third
of the stand-alone results gains, is reported with its interval: on digits nearly all networks are good, and differ by
less than seeds do. Where published tables are at hand, calibration has to reach its figures on NAS-Bench-201.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from effkit.cli import compose
from effkit.papers import Claim, ClaimRun, Findings
from effkit.progress import part, report_progress
from effkit.report import Table
from ws_nas.commands.build import plain
from ws_nas.commands.train import fit
from ws_nas.meters.ceiling import noise_ceiling, structural_baselines
from ws_nas.meters.deployment import DeploymentGap, deployment_gap
from ws_nas.meters.gap import NO_HYPERGRADIENT, NO_MIXTURE
from ws_nas.meters.ranking import ranking_gap
from ws_nas.meters.repair import repair
from ws_nas.meters.report import GapReport
from ws_nas.meters.tables.shipped import digits_table
from ws_nas.meters.value import value_gap
from ws_nas.paper.every_family import every_family, family_table
from ws_nas.paper.published import ABSENT, column, published_table, tables_at_hand
from ws_nas.paper.rows import hypergradient_rows, network_rows
from ws_nas.plots.calibration import draw_repair
from ws_nas.plots.ranking import draw_taus
from ws_nas.plots.scatter import draw_scatter

__all__ = ["FULL", "SHORT", "Form", "run_claim"]

FLOOR = 30.0  # percent, of the mean inherited accuracy; chance is 10
GAINS = {50: 0.70, 100: 0.73}  # stand-alone results, and the tau they shall bring on NAS-Bench-201
WIDTH, SCALE = 8, 4  # of the table, and of the smaller supernet


class Form(NamedTuple):
    """How much a claim does.

    Attributes:
        epochs: Of each supernet, by family: as many passes of sub-networks for both.
        known: Stand-alone results that calibration is given.
        draws: Of them.
        model: Of calibration.
        scales: Also train at half the width, for the deployment gap.
        published: Also calibrate on NAS-Bench-201, where its tables are at hand.
    """

    epochs: dict[str, int]
    known: int
    draws: int
    model: str
    scales: bool
    published: bool


FULL = Form({"spos": 24, "fairnas": 8}, 27, 5, "forest", True, True)
SHORT = Form({"spos": 6, "fairnas": 2}, 27, 5, "ridge", False, False)


def run_claim(run: ClaimRun) -> Claim:
    """Check counts and known answers, train two supernets, measure them, repair their rankings; run every family.

    Args:
        run: Gets the pictures.

    Returns:
        The judged figures.
    """
    form = FULL if run.full else SHORT
    found = Findings()
    table = digits_table()
    genotypes, seeds = list(table), table.truth("digits_test_12")
    report_progress("counts and known answers", 0.0)
    for what, wrong in run.part("counts", _counts).items():
        found.add(what, "figures that differ", wrong, 0, "exact", source="published and recorded", evidence="computed")
    scored, reports = {}, {}
    for i, (family, epochs) in enumerate(form.epochs.items()):
        with part(f"{family} supernet", 0.05 + 0.3 * i, 0.35 + 0.3 * i):
            scored[family] = run.part(family, _supernet, family, epochs, WIDTH, run.subfolder(family))
    small: dict[str, Any] | None = None
    if form.scales:
        with part("the supernet at half the width", 0.65, 0.75):
            small = run.part("half", _supernet, "fairnas", form.epochs["fairnas"], SCALE, run.subfolder("half"))
    for family, epochs in form.epochs.items():
        other = small if family == "fairnas" else None
        reports[family] = _report(family, scored[family], genotypes, seeds, other)
        _judge(found, reports[family], scored[family], f"ws-nas train family={family} trainer.max_epochs={epochs}")
    calibrated = run.part("calibration", _calibrate, scored, genotypes, seeds, form)
    for family, figures in calibrated.items():
        command = f"ws-nas calibrate run=RUN known={form.known} model={form.model}"
        name = f"{family}, calibrated with {form.known} results"
        found.add(name, "gain of tau-b on the others", figures["gain"], command=command)
        found.add(name, "its 95 % interval, from", figures["low"], command=command)
        # With 81 networks of nearly one accuracy a gain cannot be shown; a loss that is shown would be a fault.
        found.add(name, "its 95 % interval, to", figures["high"], 0.0, command=command)
    notes = _notes(run.full)
    if form.published and tables_at_hand() is not None:
        with part("calibration on NAS-Bench-201", 0.8, 0.9):
            for known, figures in run.part("published", _published).items():
                source = "needed of calibrated ranking"
                name = f"NAS-Bench-201, calibrated with {known} results"
                found.add(name, "tau-b, mean of 5 draws", figures["calibrated"], GAINS[int(known)], source=source)
                found.add(name, "tau-b of the raw score", figures["raw"])
    elif form.published:
        notes.append(f"Calibration on NAS-Bench-201 {ABSENT}.")
    with part("every family", 0.9, 1.0):
        families = run.part("families", every_family)
    bad = sum(not entry["valid"] for entry in families.values())
    found.add(f"{len(families)} families, a few steps each", "invalid genotypes derived", bad, 0, "exact")
    return Claim(found.rows, _pictures(run, reports, scored, seeds, calibrated), _tables(reports, families), notes)


def _counts() -> dict[str, int]:
    """How many recorded figures do not come out."""
    return {
        "parameters and MACs of known networks": sum(r.evaluate().verdict == "differs" for r in network_rows()),
        "hyper-gradients of a problem with a known answer": sum(
            r.evaluate().verdict == "differs" for r in hypergradient_rows()
        ),
    }


def _supernet(family: str, epochs: int, width: int, folder: Path) -> dict[str, Any]:
    """Train as ``ws-nas train`` does, and score all sub-networks by their losses."""
    torch.set_num_threads(1)
    words = [f"family={family}", f"trainer.max_epochs={epochs}", "device=cpu", "trainer=cpu", "threads=1", "logger=csv"]
    words += ["trainer.enable_progress_bar=false", f"space.width={width}"]
    options = plain(compose("ws-nas", "ws_nas.configs", "train", words))
    trained = fit(options, folder / "run")
    found = trained.scoring.scores(list(trained.space))
    return {"score": (-found.loss).tolist(), "accuracy": (100 * found.accuracy).tolist()}


def _report(
    family: str, scored: dict[str, Any], genotypes: list[Any], seeds: np.ndarray, small: dict[str, Any] | None
) -> GapReport:
    """The five meters of one supernet."""
    table = digits_table()
    m4: DeploymentGap | str = "trained at one width only"
    if small is not None:
        m4 = deployment_gap(small["score"], scored["score"])
    mean = seeds.mean(0)
    m2 = ranking_gap(scored["score"], seeds, baselines=structural_baselines(table.space, genotypes, mean))
    m1 = value_gap(scored["accuracy"], mean, alike=True)
    truth = f"digits_test_12, mean of {len(seeds)} seeds"
    return GapReport(table.space.name, f"{family}, inherited -loss", truth, m2, m1, NO_MIXTURE, m4, NO_HYPERGRADIENT)


def _judge(found: Findings, report: GapReport, scored: dict[str, Any], command: str) -> None:
    name, m2 = report.score, report.ranking
    mean = float(np.mean(scored["accuracy"]))
    found.add(name, "mean inherited accuracy of all 81", mean, FLOOR, unit="%", command=command)
    found.add(name, "tau-b with stand-alone accuracy", m2.tau, command="ws-nas gap run=RUN")
    found.add(name, "its 95 % interval, from", m2.interval[0], command="ws-nas gap run=RUN")
    found.add(name, "its 95 % interval, to", m2.interval[1], command="ws-nas gap run=RUN")


def _calibrate(scored: dict[str, Any], genotypes: list[Any], seeds: np.ndarray, form: Form) -> dict[str, Any]:
    space = digits_table().space
    figures = {}
    for family, scores in scored.items():
        report_progress(f"calibration of {family}", 0.76)
        mean = np.asarray(seeds).mean(0)
        how: dict[str, Any] = {"known": form.known, "draws": form.draws, "model": form.model}
        got = repair(scores["score"], space, genotypes, mean, **how)
        low, high = got.gain_interval
        figures[family] = {
            "gain": got.gain, "low": low, "high": high, "known": got.known, "raw": list(got.raw),
            "calibrated": list(got.calibrated), "foretold": list(got.foretold),
        }  # fmt: skip
    return figures


def _published() -> dict[str, Any]:
    """Validation accuracy after 12 epochs, repaired with test accuracies after 200."""
    space = published_table("nas_bench_201_12ep.csv").space
    q, s = column("nas_bench_201_12ep.csv", "c10_valid_12"), column("nas_bench_201_200ep.csv", "c10_test_200")
    figures = {}
    for known in GAINS:
        report_progress(f"calibration with {known} results")
        got = repair(q, space, list(space), s, known=known, draws=5, model="forest", resamples=5)
        figures[str(known)] = {"raw": got.raw_mean, "calibrated": got.calibrated_mean}
    return figures


def _pictures(
    run: ClaimRun, reports: dict[str, GapReport], scored: dict[str, Any], seeds: np.ndarray, calibrated: dict[str, Any]
) -> list[Path]:
    from ws_nas.meters.repair import Repair

    mean, files = seeds.mean(0).tolist(), []
    rankings = {report.score: report.ranking for report in reports.values()}
    files.append(draw_taus(rankings, run.folder / "taus.png", "81 digits networks: rank correlation with the truth"))
    for family, report in reports.items():
        files.append(draw_scatter(report, scored[family]["score"], mean, run.folder / f"scatter-{family}.png"))
    for family, figures in calibrated.items():
        got = Repair(
            figures["known"], tuple(figures["raw"]), tuple(figures["calibrated"]), tuple(figures["foretold"]),
            figures["gain"], (figures["low"], figures["high"]),
        )  # fmt: skip
        files.append(draw_repair(got, run.folder / f"calibration-{family}.png", f"{family} on the digits chain"))
    return files


def _tables(reports: dict[str, GapReport], families: dict[str, Any]) -> list[Table]:
    rows: list[list[Any]] = []
    for report in reports.values():
        m2 = report.ranking
        m1 = report.value.mean if not isinstance(report.value, str) else report.value
        m4 = report.deployment.gap if not isinstance(report.deployment, str) else report.deployment
        rows.append([report.score, m1, m2.gap, *m2.interval, report.discretization, m4, report.hypergradient])
    first = next(iter(reports.values())).ranking
    for name, tau in first.baselines.items():
        rows.append([f"counting {name}", None, 1 - tau, None, None, None, None, None])
    assert first.ceiling is not None
    rows.append(["another seed (noise ceiling)", None, 1 - first.ceiling, None, None, None, None, None])
    columns = ["score", "M1 mean, points", "M2 1 - tau", "tau from", "to", "M3", "M4 1 - tau", "M5"]
    five = Table("Five meters, all 81 networks", columns, rows, "Empty: does not apply to counting, or to seeds.")
    return [five, family_table(families)]


def _notes(full: bool) -> list[str]:
    ceiling = noise_ceiling(digits_table().truth("digits_test_12"))
    notes = [
        f"Two seeds of the stand-alone trainings agree with tau-b {ceiling:.3f}; so far can one be trusted.",
        "The stand-alone table ships with the package; its first line says how it was made (ws-nas build-table).",
    ]
    if not full:
        notes.append(
            "The short form trains a quarter of the epochs, calibrates with ridge, and trains at one width: it shows "
            "that all of it runs, learns and repairs."
        )
    return notes
