"""What goes wrong around a search: a full disk, Ctrl-C, a run folder that was moved, files of others, late mistakes."""

from __future__ import annotations

import errno
import json
import os
import shutil

import pytest

from effkit.testing import assert_one_line_mistake, in_process
from greedy_enlarge.cli import main
from greedy_enlarge.search.evaluators import Synthetic
from greedy_enlarge.search.journal import Journal, read_records
from greedy_enlarge.search.tasks import Result

WORDS = ["spec=tiny", "budget=280000", "steps=3", "delta=0.1", "delta_final=0.1", "moves.width_step=4"]
PROXY = ["evaluator=proxy_train", "evaluator.epochs=1", "data.limit=34", "device=cpu", "threads=1"]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return in_process(main, tmp_path, monkeypatch, capfd)


def stopped_by(monkeypatch, error, at=4):
    """Let the evaluation of a number raise an error."""
    seen, evaluate = [], Synthetic.evaluate

    def failing(self, task):
        seen.append(task)
        if len(seen) == at:
            raise error
        return evaluate(self, task)

    monkeypatch.setattr(Synthetic, "evaluate", failing)


def decisions(folder):
    return (folder / "search/decisions.jsonl").read_bytes()


@pytest.fixture
def whole(run, tmp_path):
    assert run("search", *WORDS, "hydra.run.dir=whole").code == 0
    return decisions(tmp_path / "whole")


def test_ctrl_c_leaves_a_search_that_goes_on(run, tmp_path, monkeypatch, whole):
    with monkeypatch.context() as patch:
        stopped_by(patch, KeyboardInterrupt())
        stopped = run("search", *WORDS, "hydra.run.dir=stopped")
    assert stopped.code == 130
    assert "Traceback" not in stopped.stderr
    assert not (tmp_path / "stopped/search/lock").exists()
    again = run("resume", "run=stopped", "format=json")
    assert json.loads(again.stdout)["data"]["evaluated"] == 10 - 3
    assert decisions(tmp_path / "stopped") == whole


def test_a_full_disk_is_said_in_a_line_and_loses_nothing_finished(run, tmp_path, monkeypatch, whole):
    append, written = Journal._append, []

    def full(self, text):
        written.append(text)
        if len(written) == 5:
            os.write(self._handle, text.encode()[:20])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        append(self, text)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_append", full)
        stopped = run("search", *WORDS, "hydra.run.dir=stopped")
    assert stopped.code != 0
    assert "No space left on device" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    again = run("resume", "run=stopped", "format=json")
    assert "the last line was not finished" in again.stderr
    assert json.loads(again.stdout)["data"]["evaluated"] == 10 - 3
    assert decisions(tmp_path / "stopped") == whole


def test_a_moved_run_folder_goes_on(run, tmp_path, monkeypatch):
    words = ["search", "spec=tiny", "budget=230000", "steps=1", "delta=0.15", "delta_final=0.15",
             "moves.width_step=4", "moves.kinds=[depth]", *PROXY]  # fmt: skip
    from greedy_enlarge.training.proxy import ProxyTrain

    evaluate, seen = ProxyTrain.evaluate, []

    def failing(self, task):
        seen.append(task)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return evaluate(self, task)

    with monkeypatch.context() as patch:
        patch.setattr(ProxyTrain, "evaluate", failing)
        assert run(*words, "hydra.run.dir=here").code == 130
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert run("resume", "run=there").code == 0
    assert not (tmp_path / "here").exists()
    lost = next((tmp_path / "there/search/states").glob("*.pt"))
    assert lost.stat().st_size > 1_000


def test_a_lost_state_is_named(run, tmp_path, monkeypatch):
    words = ["search", "spec=tiny", "budget=230000", "steps=1", "delta=0.15", "delta_final=0.15",
             "moves.width_step=4", "moves.kinds=[depth]", *PROXY]  # fmt: skip
    assert run(*words, "hydra.run.dir=found").code == 0
    journal = tmp_path / "found/search/journal.jsonl"
    start = read_records(journal)[0][1]["result"]["state"]
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:2]))  # the start is finished, its candidates are not
    (tmp_path / "found/search/states" / start).unlink()
    assert_one_line_mistake("greedy-enlarge", run("resume", "run=found"), ["is gone, which this search goes on from"])


def test_files_that_are_not_what_they_should_be(run, tmp_path):
    assert run("search", *WORDS, "hydra.run.dir=found").code == 0
    log = tmp_path / "found/search/decisions.jsonl"
    log.write_text(log.read_text()[:-40])
    assert_one_line_mistake("greedy-enlarge", run("report", "run=found"), ["decisions.jsonl is damaged", "resume"])
    assert run("resume", "run=found").code == 0
    assert run("report", "run=found").code == 0
    (tmp_path / "found/search.json").write_text("{")
    assert_one_line_mistake("greedy-enlarge", run("resume", "run=found"), ["search.json", "damaged"])
    (tmp_path / "file").write_text("")
    assert_one_line_mistake("greedy-enlarge", run("search", *WORDS, "hydra.run.dir=file/run"), ["hydra.run.dir"])


def test_a_run_folder_is_not_searched_twice(run, tmp_path):
    again = [*WORDS, "hydra.run.dir=found"]
    assert run("search", *again).code == 0
    assert_one_line_mistake("greedy-enlarge", run("search", *again), ["hydra.run.dir='found' holds a run already"])
    other = run("search", *again, "seed=1", "overwrite=true")  # a journal is never written over
    assert_one_line_mistake("greedy-enlarge", other, ["seed (0 there, 1 now)"])
    same = run("search", *again, "overwrite=true", "format=json")
    assert json.loads(same.stdout)["data"]["evaluated"] == 0


def test_one_bad_candidate_of_many_does_not_end_a_search(run, tmp_path, monkeypatch):
    evaluate = Synthetic.evaluate

    def failing(self, task):
        if task.spec.depths[1] > 1:
            return Result(status="failed", reason="the validation loss is nan")
        return evaluate(self, task)

    monkeypatch.setattr(Synthetic, "evaluate", failing)
    result = run("search", *WORDS, "hydra.run.dir=found", "format=json")
    assert json.loads(result.stdout)["data"]["spec"]["depths"][1] == 1


LATE = {
    "budget words": (["budget=600M"], "budget='600M' must be a whole number"),
    "budget float": (["budget=2.8e5"], "budget=280000.0 must be a whole number"),
    "margin": (["tie_margin=-1"], "tie_margin=-1"),
    "samples": (["samples=0"], "samples=0"),
    "both": (["samples=2550", "racing={samples: [2550]}"], "exclude each other"),
    "optimizer": (["evaluator=proxy_train", "evaluator.optimizer.opt=adamx"], "evaluator.optimizer.opt='adamx'"),
    "rate": (["evaluator=proxy_train", "evaluator.optimizer.lr=-1"], "evaluator.optimizer.lr=-1"),
    "smoothing": (["evaluator=proxy_train", "evaluator.label_smoothing=2"], "evaluator.label_smoothing=2"),
    "device": (["evaluator=proxy_train", "device=tpu"], "device='tpu'"),
    "part of an epoch": (["evaluator=proxy_train", "samples=1000"], "goes by whole epochs"),
    "rungs": (["evaluator=proxy_train", "racing={samples: [1000, 2550]}"], "samples=1000"),
    "repeats": (["evaluator=table", "space=textures", "repeats=0"], "repeats=0"),
}


@pytest.mark.parametrize("case", LATE)
def test_mistakes_are_found_before_anything_is_evaluated(run, tmp_path, monkeypatch, case):
    from greedy_enlarge.search import running

    def never(*_):
        raise AssertionError("something was evaluated")

    monkeypatch.setattr(running, "run_task", never)
    words, said = LATE[case]
    assert_one_line_mistake("greedy-enlarge", run("search", *WORDS, *words, "hydra.run.dir=bad"), [said])
    assert not (tmp_path / "bad/search/journal.jsonl").exists()


def test_a_name_that_timm_knows_is_not_taken(run):
    result = run("export", "spec=tiny", "name=resnet18")
    assert_one_line_mistake("greedy-enlarge", result, ["name='resnet18'", "timm knows"])
    assert_one_line_mistake("greedy-enlarge", run("export", "spec=tiny", "name=random"), ["name='random'", "hide"])
