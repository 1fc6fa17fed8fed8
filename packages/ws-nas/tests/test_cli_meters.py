"""The commands that measure, repair and search, as users type them."""

import csv
import json

import numpy as np
import pytest

from effkit.testing import assert_one_line_mistake, in_process
from effkit.testing.papers import assert_installed, assert_rows_are_complete
from ws_nas.cli import main
from ws_nas.meters.tables.latency import LatencyTable
from ws_nas.paper.rows import ORDER, PAPER, paper_rows
from ws_nas.spaces.registry import get_space

SPACE = get_space("digits_chain")
TABLE = ["table=t.csv", "truth=d_test", "scores=d_valid_3"]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """A table of the digits chain: the truth is MACs and noise, the validation figure is nearly the truth."""
    generator = np.random.default_rng(0)
    lines = []
    for g in SPACE:
        s = 60 + 8 * np.log(SPACE.cost(g).macs / 1e4) + generator.normal(0, 1)
        a, b = s + generator.normal(0, 0.5, 2)
        v, latency = s + generator.normal(0, 1), 1 + sum(g)
        lines.append(f"{SPACE.str(g)},{v},{a},{b},{SPACE.cost(g).params},{latency}")
    heading = "arch,d_valid_3,d_test_seed0,d_test_seed1,params,lat_cpu_ms"
    (tmp_path / "t.csv").write_text("\n".join([heading, *lines]) + "\n")
    return in_process(main, tmp_path, monkeypatch, capfd)


def read(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def data_of(result):
    assert result.code == 0, result.stderr
    return json.loads(result.stdout)["data"]


def test_gap_of_a_column(run, tmp_path):
    found = data_of(run("gap", *TABLE, "format=json", "hydra.run.dir=g"))
    assert found["ci_low"] < found["tau"] < found["ci_high"]
    assert found["tau"] > 0.5
    assert 0.5 < found["ceiling"] < 1
    assert set(found["baselines"]) == {"params", "macs"}
    assert found["n"] == 81
    assert [name for name, meter in found["meters"].items() if "not_applicable" in meter] == [
        "discretization", "deployment", "hypergradient",
    ]  # fmt: skip
    assert {"gap.json", "gap.md", "gap.html", "scores.csv", "scatter.png", "taus.png", "top.png"} <= {
        f.name for f in (tmp_path / "g").iterdir()
    }
    assert len(read(tmp_path / "g" / "scores.csv")) == 81
    some = data_of(run("gap", *TABLE[:2], "scores=params", "format=json", "count=20", "seed=1"))
    assert some["n"] == 20
    assert any("drawn at random" in note for note in some["notes"])
    assert some["tau"] == pytest.approx(some["baselines"]["params"])
    assert some["meters"]["value"] == {"not_applicable": "params is no accuracy"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table=t.csv", "truth=d_test"], ["run and scores are not set"]),
        ([*TABLE, "run=x"], ["run and scores are both set"]),
        ([*TABLE[:2], "scores=d_valid"], ["scores='d_valid'", "d_valid_3"]),
        ([TABLE[0], "truth=d_test_9", TABLE[2]], ["truth='d_test_9'", "d_test"]),
        ([TABLE[0], "truth=params", TABLE[2]], ["truth='params' is no accuracy"]),
        ([TABLE[0], "truth=d_valid_3", "scores=params"], ["one seed", "ceiling="]),
        ([TABLE[0], "truth=d_test", "scores=d_test_seed0"], ["is what truth='d_test' is made of"]),
        ([*TABLE, "ceiling=1.5"], ["ceiling=1.5"]),
        ([*TABLE, "count=82"], ["count=82", "81"]),
        ([*TABLE, "count=9"], ["count=9", "too few"]),
        ([*TABLE, "resamples=10"], ["resamples=10"]),
        ([*TABLE, "space=nb201_tiny"], ["'0000'", "nb201_tiny"]),
        (["table=none.csv", *TABLE[1:]], ["table='none.csv' does not exist"]),
        ([*TABLE, "scores_table=none.csv"], ["scores_table='none.csv' does not exist"]),
    ],
)
def test_gap_mistakes(run, words, said):
    assert_one_line_mistake("ws-nas", run("gap", *words), said)


def test_calibrate(run, tmp_path):
    found = data_of(run("calibrate", *TABLE, "known=30", "draws=2", "model=ridge", "format=json", "hydra.run.dir=c"))
    assert found["tau"] == pytest.approx(found["raw_tau"] + found["gain"])
    assert found["ci_low"] < found["gain"] < found["ci_high"]
    assert len(found["taus"]) == 2
    assert (tmp_path / "c" / "calibration.png").is_file()
    # For use: some results only, everything ranked.
    rows = (tmp_path / "t.csv").read_text().splitlines()
    (tmp_path / "some.csv").write_text("\n".join(rows[:1] + rows[1::3]) + "\n")
    words = ["table=some.csv", "truth=d_test", "scores=d_valid_3", "scores_table=t.csv", "model=ridge"]
    used = data_of(run("calibrate", *words, "format=json", "hydra.run.dir=u"))
    assert (used["known"], used["n"]) == (27, 81)
    ranking = read(tmp_path / "u" / "ranking.csv")
    assert len(ranking) == 81
    predicted = [float(row["predicted_rank"]) for row in ranking]
    assert predicted == sorted(predicted, reverse=True)
    for words, said in (
        (["known=75"], ["known=75 of 81"]),
        (["known=9"], ["9 results, at least 10"]),
        (["known=30", "draws=0"], ["draws=0"]),
        (["known=30", "model=tree"], ["model='tree'", "forest, ridge"]),
        (["known=30", "folds=1"], ["folds=1"]),
    ):
        assert_one_line_mistake("ws-nas", run("calibrate", *TABLE, *words), said)


def test_search_on_a_table(run, tmp_path):
    words = ["table=t.csv", "scores=d_valid_3", "budget=40", "strategy.population=10", "strategy.parents=5"]
    found = data_of(run("search", *words, "limit.macs=150000", "format=json", "hydra.run.dir=s"))
    history = read(tmp_path / "s" / "history.csv")
    assert len({row["genotype"] for row in history}) == len(history) == found["evaluations"]
    assert max(float(row["macs"]) for row in history) <= 150_000
    assert found["score"] == max(float(row["score"]) for row in history)
    both = data_of(run("search", *words, "strategy.trade=latency_ms", "latency=t.csv:lat_cpu_ms", "format=json"))
    assert len(both["front"]) > 1
    table = LatencyTable(SPACE.space_id, "cpu", 1, [[0.0, 1.0, 2.0]] * 4, 1.0)
    (tmp_path / "l.json").write_text(table.to_json())
    parts = data_of(run("search", *words, "limit.latency_ms=4", "latency=l.json", "format=json"))
    assert table.latency(SPACE.parse(parts["genotype"])) <= 4
    for strategy in ("random", "regularized"):
        again = data_of(run("search", *words[:3], f"strategy={strategy}", "format=json"))
        assert again["evaluations"] == 40


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["limit.macs=10"], ["none of its genotypes is within limit.macs <= 10"]),
        (["limit.macs=-1"], ["limit.macs=-1"]),
        (["limit.latency_ms=3"], ["limit.latency_ms", "needs a latency table"]),
        (["latency=t.csv"], ["latency='t.csv'", "FILE.csv:COLUMN"]),
        (["latency=t.csv:params"], ["latency='t.csv:params' is no latency", "lat_cpu_ms"]),
        (["budget=0"], ["budget=0"]),
        (["strategy.population=1"], ["strategy.population=1"]),
        (["strategy.trade=flops"], ["strategy.trade='flops'"]),
        (["strategy=random", "strategy.batch=0"], ["strategy.batch=0"]),
        (["strategy=perturbation"], ["strategy=perturbation", "run=RUN instead of scores="]),
    ],
)
def test_search_mistakes(run, words, said):
    assert_one_line_mistake("ws-nas", run("search", "table=t.csv", "scores=d_valid_3", *words), said)


def test_a_trained_supernet_is_measured_repaired_and_searched(run):
    small = ["trainer=cpu", "trainer.max_epochs=1", "data.limit=160", "threads=1", "device=cpu", "optimizer.lr=0.05"]
    assert run("train", "family=darts", *small, "hydra.run.dir=r").code == 0
    shared = ["run=r", "scoring.pictures=32", "scoring.calibration=32", "device=cpu", "threads=1", "format=json"]
    found = data_of(run("gap", *shared, "table=t.csv", "truth=d_test"))
    assert found["score"] == "darts, inherited -loss"
    assert found["meters"]["discretization"]["gap"] == pytest.approx(
        found["meters"]["discretization"]["hard"] - found["meters"]["discretization"]["soft"]
    )
    assert "Hessian" in found["meters"]["hypergradient"]["not_applicable"]
    assert found["meters"]["value"]["n"] == 81
    gained = data_of(run("calibrate", *shared, "table=t.csv", "truth=d_test", "known=30", "draws=1", "model=ridge"))
    assert gained["n"] == 81
    best = data_of(run("search", *shared, "budget=81", "scoring.metric=accuracy"))
    assert best["evaluations"] == 81
    missed = data_of(run("search", *shared, "strategy=perturbation", "budget=12"))
    assert SPACE.parse(missed["genotype"]) in SPACE
    assert missed["message"] == "12 evaluations of the mixture decided 4 times"
    for words, said in (
        (["budget=11"], ["budget=11", "needs 12 evaluations"]),
        (["limit.macs=100000"], ["limit={'macs': 100000}", "strategy=constrained"]),
    ):
        assert_one_line_mistake("ws-nas", run("search", *shared, "strategy=perturbation", *words), said)
    wrong = run("gap", *shared, "space=nb201_tiny", "table=t.csv", "truth=d_test")
    assert_one_line_mistake("ws-nas", wrong, ["space=nb201_tiny", "is not that of run='r'"])


def test_rows_are_complete():
    assert_installed(PAPER)
    assert_rows_are_complete(paper_rows(), ORDER)


def test_rows_that_can_be_computed_match():
    outcomes = [row.evaluate() for row in paper_rows() if row.compute is not None]
    assert [(o.name, o.metric, o.reason) for o in outcomes if o.verdict != "match"] == []
    assert len(outcomes) >= 30
