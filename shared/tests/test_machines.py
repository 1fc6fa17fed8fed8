"""Two reports of `effkit reproduce` side by side: what is the same or other, with which interval, and refusals."""

import copy
import json
import math

import pytest

from effkit.errors import UserError
from effkit.intervals import median_interval, ratio_interval
from effkit.main import main
from effkit.reproduce.machines import compare_machines
from effkit.rows import Row, Tolerance
from effkit.testing import in_process, unread_keys


def outcome(metric, ours, table="1", unit=""):
    close = Tolerance("at_least")
    row = Row(table, "a net", metric, 1.0, unit, "Table 1", "printed", compute=lambda: ours, tolerance=close)
    return row.judge(ours).to_dict()


def document(speed=10.0, accuracy=(0.5, 0.6, 0.7), date="2026-07-01T00:00:00Z", **paper):
    table = {"title": "runs", "columns": ["network", "seed", "accuracy", "device"], "note": ""}
    table["rows"] = [["ours", seed, value, "cpu"] for seed, value in enumerate(accuracy)]
    claim = {
        "outcomes": [outcome("time", speed, "claim", "s")],
        "tables": [table],
        "form": "short",
        "seconds": 2 * speed,
    }
    fields = {"name": "p", "status": "ok", "outcomes": [outcome("params", 7.0)], "claim": claim}
    fields |= {"claim_status": "holds", "seconds": 3 * speed, "title": "", "note": "", "kept": False}
    environment = {"cpu": "one", "gpu": "", "threads": 2, "versions": {"torch": "2.0"}, "date": date}
    shared = {"title": "effkit reproduce", "claims": True, "full": False, "effkit": "0.1.0", "commit": ""}
    return {**shared, "date": date, "environment": environment, "papers": [fields | paper]}


@pytest.fixture
def save(tmp_path):
    def write(name, value):
        path = tmp_path / name / "results.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return str(path)

    return write


def figures(report):
    return {(f["table"], f["figure"]): f for f in report.data["figures"]}


def test_figures_are_matched_and_judged(save, tmp_path):
    other = document(speed=5.0, accuracy=(0.55, 0.66, 0.77))
    other["environment"]["versions"]["torch"] = "2.1"
    other["papers"][0]["outcomes"].append(outcome("MACs", 3.0))
    report = compare_machines(save("a", document()), save("b", other), tmp_path / "out")
    found = figures(report)
    assert found["1", "a net: params"]["verdict"] == "same"
    assert found["1", "a net: MACs"]["verdict"] == "only in B"
    time = found["claim", "a net: time, s"]
    assert (time["ratio"], time["interval"], time["verdict"]) == (0.5, None, "no interval")
    # The same seeds on both sides: every pair has the ratio 1.1, so that nothing is left for noise.
    seeds = found["runs", "ours: accuracy"]
    assert seeds["paired"]
    assert seeds["interval"] == pytest.approx([1.1, 1.1])
    assert seeds["verdict"] == "more"
    assert [(f["figure"], f["ratio"]) for f in report.data["seconds"]] == [("rows and claim", 0.5), ("claim", 0.5)]
    assert report.data["environment"]["rows"] == [["torch", "2.0", "2.1"]]
    assert report.exit_code == 0
    page = (tmp_path / "out" / "index.html").read_text()
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    for word in ("a net: MACs", "only in B", "torch"):
        assert word in page, word
        assert word in markdown, word
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["figures"][0]["verdict"] == "same"


def test_a_folder_of_reports_is_repeats(save, tmp_path):
    for side, speeds in {"a": (10.0, 10.2, 9.8), "b": (20.0, 20.4, 19.6)}.items():
        for number, speed in enumerate(speeds):
            save(f"{side}/{number}", document(speed, date=f"2026-07-0{number + 1}T00:00:00Z"))
    report = compare_machines(str(tmp_path / "a"), str(tmp_path / "b"), tmp_path / "out")
    time = figures(report)["claim", "a net: time, s"]
    assert time["verdict"] == "more"
    assert time["ratio"] == pytest.approx(2.0)
    assert 1.8 < time["interval"][0] < 2.0 < time["interval"][1] < 2.2
    assert figures(report)["1", "a net: params"]["verdict"] == "same"
    alike = compare_machines(str(tmp_path / "a"), str(tmp_path / "a"), tmp_path / "out")
    assert {f["verdict"] for f in alike.data["figures"]} == {"same", "alike"}


def test_short_and_full_claims_are_not_compared(save, tmp_path):
    full = document(speed=50.0)
    full["papers"][0]["claim"]["form"] = "full"
    report = compare_machines(save("a", document()), save("b", full), tmp_path / "out")
    assert figures(report)["claim", "a net: time, s"]["verdict"] == "not compared"
    assert "forms of the claim: A short, B full" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "no JSON"),
        ({"title": "effkit compare-machines"}, "no report of effkit reproduce"),
        ({"title": "effkit reproduce", "papers": []}, "has no date"),
        (document(outcomes=[{"name": "x"}]), "another form"),
        (document(name="other"), "share no paper"),
    ],
)
def test_wrong_files_are_refused_in_one_line(save, tmp_path, content, said):
    with pytest.raises(UserError, match=said) as error:
        compare_machines(save("a", document()), save("b", content), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_reports_of_different_machines_are_no_repeats(save, tmp_path):
    other = document()
    other["environment"] = {**copy.deepcopy(other["environment"]), "cpu": "two"}
    save("a/1", document())
    save("a/2", other)
    with pytest.raises(UserError, match="one and two"):
        compare_machines(str(tmp_path / "a"), save("b", document()), tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"without a results\.json"):
        compare_machines(str(tmp_path / "empty"), save("b", document()), tmp_path / "out")


def test_the_command(save, tmp_path, monkeypatch, capfd):
    run = in_process(main, tmp_path, monkeypatch, capfd)
    code, out, err = run("compare-machines", save("a", document()), save("b", document(speed=5.0)), "format=json")
    assert code == 0, err
    assert json.loads(out)["data"]["a"]["machine"] == "one"
    assert (tmp_path / "comparison" / "index.html").is_file()
    code, _, err = run("compare-machines", "a/results.json")
    assert (code, err.count("\n")) == (2, 1)
    assert "needs two reports" in err
    code, _, err = run("compare-machines", "a/results.json", "nowhere.json")
    assert (code, err.count("\n")) == (2, 1)
    assert "nowhere.json" in err


def test_intervals_against_known_answers():
    assert median_interval([1, 2, 3, 4, 5]) is None
    assert median_interval(range(1, 7)) == (1, 6)  # 2 / 2^6 = 3.1 % lies outside
    assert median_interval(range(1, 21)) == (6, 15)  # as in every table of the sign test
    assert ratio_interval([2.0], [3.0]) == (1.5, None, None)
    assert ratio_interval([2.0], [3.0]).differs is None
    same = ratio_interval([1.0, 2.0, 4.0], [2.0, 4.0, 8.0], paired=True)
    assert same == pytest.approx((2, 2, 2))
    # Logarithms base 2 of (1, 2, 4) and (2, 4, 8): difference 1, standard error sqrt(2 / 3), 4 degrees of freedom.
    value, low, high = ratio_interval([1.0, 2.0, 4.0], [2.0, 4.0, 8.0])
    assert value == pytest.approx(2)
    assert math.log2(high) == pytest.approx(1 + 2.776 * math.sqrt(2 / 3))
    assert math.log2(low) == pytest.approx(1 - 2.776 * math.sqrt(2 / 3))
    with pytest.raises(ValueError, match="positive"):
        ratio_interval([0.0], [1.0])


def test_every_key_is_read(save, tmp_path, monkeypatch, capfd):
    line = [save("a", document()), save("b", document(speed=5.0)), "output=out"]
    assert unread_keys(main, "compare-machines", in_process(main, tmp_path, monkeypatch, capfd), line) == []
