"""A run that goes on is one run: one folder, one status, one log."""

import json
import os

import pytest

from effkit.cli.continued import continue_in

KILLED = {"status": "running", "command": "train", "pid": 1, "started": "2026-01-01T00:00:00+00:00"}


@pytest.fixture
def killed(tmp_path):
    """What a run that died in its second epoch leaves."""
    folder = tmp_path / "runs" / "train" / "killed"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text("first: config\n")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").write_text("epoch 0")
    (folder / "status.json").write_text(json.dumps(KILLED))
    (folder / "train.log").write_text("the first attempt\n")
    return folder


def status(folder):
    return json.loads((folder / "status.json").read_text())


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.mark.parametrize("which", ["", "checkpoints/last.ckpt"])
def test_a_resumed_job_works_in_the_folder_of_its_run(demo, killed, capfd, tmp_path, which):
    assert demo(["train", f"+resume=runs/train/killed/{which}"]) == 0
    assert files(tmp_path / "runs") == ["train", "train/killed", *(f"train/killed/{name}" for name in files(killed))]
    assert (killed / "weights.txt").read_text() == "1.0"
    found = status(killed)
    assert (found["status"], found["pid"], found["started"]) == ("finished", os.getpid(), KILLED["started"])
    assert {"resumed", "ended"} <= set(found)
    assert (killed / ".hydra" / "config.yaml").read_text() == "first: config\n"
    first, *more = (killed / "train.log").read_text().splitlines()
    assert first == "the first attempt"
    assert any("training with lr" in line for line in more)
    assert "run folder: runs/train/killed\n" in capfd.readouterr().err


def test_the_folders_made_for_it_go_with_it(demo, killed, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert demo(["train", f"+resume={killed}"]) == 0
    assert list(elsewhere.iterdir()) == []
    mine = elsewhere / "mine"
    mine.mkdir()
    (mine / "notes.txt").touch()
    assert demo(["train", f"+resume={killed}", "hydra.run.dir=mine"]) == 0
    assert files(elsewhere) == ["mine", "mine/notes.txt"]  # what was there before stays
    assert demo(["train", f"+resume={killed}", f"hydra.run.dir={killed}"]) == 0
    assert status(killed)["status"] == "finished"
    monkeypatch.chdir(killed.parent)
    assert demo(["train", "+resume=killed", "hydra.job.chdir=true"]) == 0
    assert files(killed.parent)[0] == "killed"
    assert len(list(killed.parent.iterdir())) == 1


def test_jobs_of_a_sweep_go_on_in_the_folders_they_name(demo, killed, tmp_path):
    other = tmp_path / "other"
    (other / "checkpoints").mkdir(parents=True)
    assert demo(["train", "--multirun", f"+resume={killed},{other}", "hydra.sweep.dir=sweep"]) == 0
    assert [status(folder)["status"] for folder in (killed, other)] == ["finished", "finished"]
    assert files(tmp_path / "sweep") == ["multirun.yaml"]


def test_an_attempt_that_is_refused_says_nothing_about_the_run(demo, killed, capfd):
    assert demo(["train", f"+resume={killed}", "fail=value"]) == 2
    assert status(killed) == KILLED
    assert "epochs must be at least 1" in (killed / "train.log").read_text()
    (killed / "status.json").unlink()
    assert demo(["train", f"+resume={killed}", "fail=value"]) == 2
    assert not (killed / "status.json").exists()
    assert demo(["train", f"+resume={killed}", "fail=bug"]) == 1
    assert status(killed)["status"] == "failed"


def test_what_names_no_run_leaves_the_job_its_own_folder(demo, killed, tmp_path):
    loose = tmp_path / "mine.ckpt"
    loose.touch()
    assert continue_in(str(loose)) is None
    assert continue_in(None) is None
    assert continue_in("") is None
    (tmp_path / "empty").mkdir()
    assert continue_in("empty", tmp_path) is None
    assert continue_in("runs/train/killed", tmp_path) == killed
    assert demo(["train", f"+resume={loose}", "hydra.run.dir=own"]) == 0
    assert status(tmp_path / "own")["status"] == "finished"
