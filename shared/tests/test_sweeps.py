"""The table at the end of a sweep: a row a job, whatever became of it."""

from __future__ import annotations

import json

import pytest

from effkit.cli.job import Outcome
from effkit.cli.sweeps import JobRow, headline, rows_in, sweep_table


def test_the_table_has_words_status_and_folder_of_every_job(demo, capfd, tmp_path):
    words = ["train", "-m", "fail=null,value,bug", "solver.lr=1.5", "hydra.sweep.dir=sweep"]
    assert demo(words) == 2
    out, err = capfd.readouterr()
    end = [line.rstrip() for line in out[out.index("3 jobs") :].splitlines() if line.strip()]
    assert [line.split() for line in end[3:6]] == [
        ["0", "fail=null", "finished", "sweep/0"],
        ["1", "fail=value", "failed", "sweep/1"],
        ["2", "fail=bug", "failed", "sweep/2"],
    ]
    assert end[1].split() == ["job", "words", "status", "folder"]
    assert end[6] == "all jobs: solver.lr=1.5"
    assert err.count("demo: error: job 1") == 1


def test_checks_that_do_not_hold_are_no_failure(demo, capfd):
    assert demo(["train", "-m", "exit_code=0,1", "format=json"]) == 1
    jobs = json.loads(capfd.readouterr().out)["jobs"]
    assert [job["status"] for job in jobs] == ["finished", "does not hold"]
    assert [(job["metric"], job["value"]) for job in jobs] == [(None, None)] * 2


def test_a_command_without_a_folder_has_no_column_for_it(demo, capfd):
    assert demo(["show-all", "-m", "images=[a],[b]"]) == 0
    out, _ = capfd.readouterr()
    assert "folder" not in out
    assert out.count("finished") == 2


def test_a_sweep_that_is_ended_shows_what_had_begun(demo, capfd, tmp_path):
    """``fail=exit`` leaves the process, as Ctrl-C does, and the third job never begins."""
    assert demo(["train", "-m", "fail=null,exit,value", "hydra.sweep.dir=sweep"]) == 5
    out, _ = capfd.readouterr()
    lines = [line for line in out.splitlines() if line.strip()]
    assert lines[0] == "2 jobs that had begun when the sweep was ended"
    assert [line.split()[:3] for line in lines[3:5]] == [
        ["0", "fail=null", "finished"],
        ["1", "fail=exit", "failed"],
    ]


def test_and_leaves_standard_output_to_the_document(demo, capfd):
    assert demo(["train", "-m", "fail=null,exit", "format=json"]) == 5
    out, err = capfd.readouterr()
    assert out == ""
    assert "2 jobs that had begun" in err


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"best": {"epoch": 3, "val_top1": 90.5}, "test_top1": 1.0}, ("best val_top1", 90.5)),
        ({"best": None, "test_loss": 0.5, "test_top1": 88}, ("test_top1", 88.0)),
        ({"perplexity": 7.5}, ("perplexity", 7.5)),
        ({"lr": 0.1}, ("", None)),
    ],
)
def test_the_figure_that_sums_up_a_run(figures, expected):
    assert headline(figures) == expected


def test_folders_are_read_in_the_order_of_their_numbers(tmp_path):
    for number, status in ((10, "running"), (2, "finished"), (0, "failed")):
        folder = tmp_path / str(number)
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "overrides.yaml").write_text(f"- seed={number}\n")
        (folder / "status.json").write_text(json.dumps({"status": status}))
        (folder / "metrics.json").write_text(json.dumps({"best": {"epoch": 0, "val_top1": 50.0}}))
    rows = rows_in(tmp_path)
    assert [(row.overrides, row.status) for row in rows] == [
        (["seed=0"], "failed"),
        (["seed=2"], "finished"),
        (["seed=10"], "running"),
    ]
    assert [row.value for row in rows] == [None, 50.0, None]  # an old figure is not that of a run that goes on
    (tmp_path / "2" / "status.json").write_text("half a fi")
    assert len(rows_in(tmp_path)) == 2


def test_words_that_all_jobs_share_stand_below():
    rows = [JobRow(["a=1", "seed=0"], "finished", ""), JobRow(["a=1", "seed=1"], "finished", "")]
    report = sweep_table(rows)
    assert [row[1] for row in report.tables[0].rows] == ["seed=0", "seed=1"]
    assert report.lines == ["all jobs: a=1"]
    alone = sweep_table(rows[:1])
    assert (alone.title, alone.lines, alone.tables[0].rows[0][1]) == ("1 job", [], "a=1 seed=0")


def test_an_outcome_says_how_its_job_ended():
    assert Outcome([]).status == "finished"
    assert Outcome([], exit_code=1).status == "does not hold"
    assert Outcome([], error="no", exit_code=2).status == "failed"
    assert Outcome([], error="gone", interrupted=True, exit_code=1).status == "interrupted"
