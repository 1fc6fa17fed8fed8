"""Training learns real digits, by the calls of ``tnt-vit train experiment=digits``; and the claim made of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from effkit.lightning.logging import read_rows
from effkit.papers import ClaimRun
from effkit.plots import read_description
from tnt_vit.paper import claim as paper_claim
from tnt_vit.paper.claim import FLOOR, RUNS, Trained, run_claim, train_experiment

# A quarter of the recipe's epochs in batches half as large, without the mixing that only pays in longer runs.
SHORT = ("trainer.max_epochs=10", "data.batch_size=32", "mixup.mixup_alpha=0")
TINY = ("trainer.max_epochs=2", "data.limit=64")


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_experiment("digits", tmp_path_factory.mktemp("short"), *SHORT)


@pytest.mark.slow
def test_a_short_run_learns(short: Trained) -> None:
    assert len(short.curve) == 10
    assert short.accuracy == short.curve[-1]
    assert short.accuracy >= 70  # measured with seeds 0, 1, 2: 87.2, 86.4, 78.6
    rows = read_rows(Path(short.metrics["folder"]) / "metrics.csv")
    losses = [float(row["train_loss"]) for row in rows]
    assert losses[-1] < losses[3] < losses[0]


@pytest.mark.slow
def test_the_network_returned_is_the_trained_one(short: Trained) -> None:
    images, labels = short.data.pictures("test"), short.data.labels("test")
    images = short.data.preprocessing.normalize(images)
    with torch.no_grad():
        right = (short.model.eval()(images).argmax(1) == labels).float().mean()
    assert 100 * float(right) == pytest.approx(short.accuracy, abs=1e-3)


def test_same_seed_same_run(tmp_path: Path) -> None:
    first = train_experiment("digits", tmp_path / "first", *TINY, "seed=3")
    again = train_experiment("digits", tmp_path / "again", *TINY, "seed=3")
    other = train_experiment("digits", tmp_path / "other", *TINY, "seed=4")
    assert first.metrics["final"] == again.metrics["final"]
    state = again.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in first.model.state_dict().items())
    assert other.metrics["final"] != first.metrics["final"]


def test_claim_judges_tnt_and_shows_the_baseline(tmp_path: Path) -> None:
    """With two epochs on 64 pictures the floor is out of reach, and the claim must say so."""
    claim = run_claim(ClaimRun(tmp_path, full=True), *TINY)
    rows = {(row.name, row.metric): row for row in claim.rows}
    judged = rows["TNT on digits", "test accuracy"]
    assert (judged.paper, judged.tolerance, judged.verdict) == (FLOOR, "at_least", "differs")
    assert judged.ours < 60
    baseline = rows["plain ViT on digits", "test accuracy"]
    assert (baseline.paper, baseline.verdict) == (None, "nothing to compare")
    assert {row.verdict for row in claim.rows if row.metric == "params"} == {"match"}
    sizes = [rows[f"{name} on digits", "params"].ours for name in RUNS]
    assert sizes[0] > sizes[1]  # the plain ViT has no inner blocks
    assert [figure.name for figure in claim.figures] == ["accuracy.png", "predictions.png"]
    assert all(figure.parent == tmp_path and 1_000 < figure.stat().st_size < 300_000 for figure in claim.figures)
    curves, gallery = map(read_description, claim.figures)
    assert re.search(r"2 epochs: TNT goes from [\d.]+ to [\d.]+ % and plain ViT goes from .*; .* 95\.5 %", curves)
    assert re.search(r"\d+ mistakes, a \d taken for a \d", gallery)
    comparison, epochs = claim.tables
    assert [row[0] for row in comparison.rows] == list(RUNS)
    assert comparison.rows[0][4] > comparison.rows[1][4]  # MACs
    assert [row[0] for row in epochs.rows] == [1, 2]
    assert any("plain ViT" in note for note in claim.notes)
    assert {path.name for path in tmp_path.iterdir()} == {"accuracy.png", "predictions.png", *RUNS.values()}


def untrained(name: str, folder: Path, *overrides: str, **options: Any) -> Trained:
    """A broken method: the recipe without a step that changes anything."""
    return train_experiment(name, folder, *overrides, "optimizer.lr=1e-9", "data.limit=64", "trainer.max_epochs=1")


def test_the_short_form_fails_for_a_network_that_learns_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper_claim, "train_experiment", untrained)
    claim = run_claim(ClaimRun(tmp_path))
    judged = next(row for row in claim.rows if (row.name, row.metric) == ("TNT on digits", "test accuracy"))
    assert (judged.paper, judged.verdict) == (paper_claim.SHORT.floor, "differs")
    assert any("short form" in note for note in claim.notes)


def test_a_stopped_claim_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of a claim that was stopped after its first network are those of one that was not."""
    stamp = {"code": "as it is"}
    whole = run_claim(ClaimRun(tmp_path / "whole", stamp=stamp), *TINY)

    def stop(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "stopped"
    measure = paper_claim._measure
    monkeypatch.setattr(paper_claim, "_measure", lambda name, *rest: measure(name, *rest) if name == "TNT" else stop())
    with pytest.raises(KeyboardInterrupt):
        run_claim(ClaimRun(folder, stamp=stamp), *TINY)
    monkeypatch.setattr(paper_claim, "_measure", measure)
    again = ClaimRun(folder, stamp=stamp)
    found = run_claim(again, *TINY)
    assert [part.kept for part in again.parts.values()] == [True, False]
    timed = "training time"
    assert [r.ours for r in found.rows if r.metric != timed] == [r.ours for r in whole.rows if r.metric != timed]
    for name in ("accuracy.png", "predictions.png"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_learns_64_pictures_by_heart(tmp_path: Path) -> None:
    run = train_experiment(
        "digits", tmp_path, "data.limit=64", "trainer.max_epochs=160", "label_smoothing=0", "threads=2"
    )
    assert run.metrics["final"]["train_top1"] == 100
    assert run.metrics["final"]["train_loss"] < 0.1
