"""Families side by side: one budget, one truth, a row each."""

import json

import numpy as np
import pytest

from effkit.plots.sentence import read_description
from effkit.testing import assert_one_line_mistake, in_process
from ws_nas.cli import main
from ws_nas.families.registry import FAMILIES
from ws_nas.meters.tables.shipped import digits_table

SMALL = [
    *("trainer=cpu", "threads=1", "data.limit=64", "data.batch_size=16", "trainer.max_epochs=1", "scoring.pictures=32"),
    *("trainer.enable_progress_bar=false", "scoring.calibration=16", "resamples=100", "format=json"),
]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return in_process(main, tmp_path, monkeypatch, capfd)


def test_each_family_has_its_row_and_the_same_truth(run, tmp_path):
    words = [
        "families=[fairnas,darts,individual]",
        "+options.individual.candidates=2",
        "hydra.run.dir=out",
        "taus_every=1",
    ]
    done = run("compare", *SMALL, *words, "taus_every=1")
    assert done.code == 0, done.stderr
    data = json.loads(done.stdout)["data"]
    table = digits_table()
    mean = table.truth("digits_test_12").mean(0)
    assert set(data["baselines"]) == {"params", "macs"}
    found = data["families"]
    assert list(found) == ["fairnas", "darts", "individual"]
    for entry in found.values():
        genotype = table.space.parse(entry["genotype"])
        assert entry["stand_alone"] == pytest.approx(float(table.truth("digits_test_12", [genotype]).mean()))
        assert entry["regret"] == pytest.approx(float(mean.max()) - entry["stand_alone"])
        assert entry["epochs"] == 1
    for name in ("fairnas", "darts"):
        assert found[name]["n"] == 81
        assert found[name]["ceiling"] == data["ceiling"]
        assert found[name]["ci_low"] <= found[name]["tau"] <= found[name]["ci_high"]
    assert np.isfinite(found["darts"]["meters"]["discretization"]["gap"])
    assert "not_applicable" in found["fairnas"]["meters"]["discretization"]
    assert "no weights" in found["individual"]["not_applicable"]
    assert "fairnas" in read_description(tmp_path / "out" / "taus.png")
    for name in ("fairnas", "darts"):  # of the same weights as in the end
        assert found[name]["tau_by_epoch"]["1"] == pytest.approx(found[name]["tau"])
    assert "tau_by_epoch" not in found["individual"]
    assert "darts from" in read_description(tmp_path / "out" / "taus-by-epoch.png")
    seen = read_description(tmp_path / "out" / "front.png")
    assert f"individual to {found['individual']['stand_alone']:.2f} %" in seen
    assert f"on the front of MACs, up to {mean.max():.2f} %" in seen
    assert json.loads((tmp_path / "out" / "darts" / "meters.json").read_text())["tau"] == found["darts"]["tau"]


def test_families_of_other_spaces_say_why_they_are_left_out(run, monkeypatch):
    from ws_nas.commands import compare

    some = {name: FAMILIES[name] for name in ("spos", "pc_darts", "ofa")}
    monkeypatch.setattr(compare, "FAMILIES", some)
    done = run("compare", *SMALL, "count=12")
    assert done.code == 0, done.stdout
    data = json.loads(done.stdout)["data"]
    assert list(data["families"]) == ["spos"]
    assert set(data["left_out"]) == {"pc_darts", "ofa"}
    assert all(data["left_out"].values())


def test_a_training_that_fails_leaves_the_others(run, monkeypatch):
    from ws_nas.commands import compare
    from ws_nas.families.base import NotFinite

    whole = compare.fit

    def fit(options, *others):
        if options["family"]["name"] == "spos":
            raise NotFinite("loss is nan in genotype=0000")
        return whole(options, *others)

    monkeypatch.setattr(compare, "fit", fit)
    done = run("compare", *SMALL, "families=[spos,fairnas]", "count=12")
    assert done.code == 1
    found = json.loads(done.stdout)["data"]["families"]
    assert found["spos"]["not_applicable"] == "failed: loss is nan in genotype=0000"
    assert found["fairnas"]["n"] == 12


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["families=spos"], ["families='spos'", "list"]),
        (["families=[spo]"], ["families='spo'", "spos"]),
        (["families=[spos,spos]"], ["families", "spos twice"]),
        (["families=[pc_darts]"], ["pc_darts"]),
        (["+options.spo.x=1"], ["options='spo'", "spos"]),
        (["families=[enas]", "+options.enas.samples=0"], ["options.enas.samples=0"]),
        (["families=[spos]", "supernet=true"], ["supernet=", "mapping"]),
        (["families=[spos]", "trainer.max_epochs=-1"], ["trainer.max_epochs=-1"]),
        (["families=[spos]", "scoring.pictures=-inf"], ["scoring.pictures=-inf"]),
        (["resamples=99999999999"], ["resamples=99999999999"]),
        (["options=3"], ["options=3", "mapping"]),
        (["truth=digits_test"], ["digits_test"]),
        (["ceiling=2"], ["ceiling=2"]),
        (["taus_every=0"], ["taus_every=0", "at least 1"]),
        (["count=5"], ["count=5", "10"]),
        (["space=nb201_tiny"], ["table=digits", "nb201_tiny"]),
    ],
    ids=lambda w: " ".join(w),
)
def test_mistakes_are_one_line(run, words, said):
    assert_one_line_mistake("ws-nas", run("compare", *SMALL, *words), said)
