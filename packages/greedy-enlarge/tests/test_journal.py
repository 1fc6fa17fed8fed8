"""A search that is killed anywhere goes on, repeats nothing that was finished, and decides the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import Executor, Future, ProcessPoolExecutor

import pytest

from effkit.errors import UserError
from effkit.executors import WorkerDied
from greedy_enlarge.families import base
from greedy_enlarge.search.evaluators import Synthetic
from greedy_enlarge.search.greedy import DECISIONS, Settings, search
from greedy_enlarge.search.journal import FILE, Journal, read_records
from greedy_enlarge.search.moves import Moves
from greedy_enlarge.search.running import Runner
from greedy_enlarge.search.tasks import Result, Task

SPEC = base("tiny")
BUDGET = 280_000
SETTINGS = Settings(steps=3, delta=0.1, delta_final=0.1, moves=Moves(width_step=4))
CONFIG = {"budget": BUDGET, "moves": {"width_step": 4}, "seed": 0}


class Killed(BaseException):
    """Stands for a process that is gone."""


class Counting(Synthetic):
    """Counts its evaluations, and dies at one of them."""

    def __init__(self, dies_at=None):
        super().__init__()
        object.__setattr__(self, "seen", [])
        object.__setattr__(self, "dies_at", dies_at)

    def evaluate(self, task):
        if len(self.seen) == self.dies_at:
            raise Killed
        self.seen.append(task)
        return super().evaluate(task)


def run(folder, evaluator, executor=None):
    with Journal.open(folder, CONFIG) as journal:
        return search(SPEC, BUDGET, evaluator, SETTINGS, executor=executor, journal=journal)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    evaluator = Counting()
    run(folder, evaluator)
    return len(evaluator.seen), (folder / DECISIONS).read_bytes()


def test_killed_after_any_evaluation_it_goes_on_and_decides_the_same(whole, tmp_path):
    total, decisions = whole
    assert total == 10
    for k in range(total):
        folder = tmp_path / str(k)
        with pytest.raises(Killed):
            run(folder, Counting(dies_at=k))
        again = Counting()
        found = run(folder, again)
        assert len(again.seen) == total - k
        assert found.evaluated == total - k
        assert (folder / DECISIONS).read_bytes() == decisions
    once_more = Counting()
    run(tmp_path / "3", once_more)
    assert once_more.seen == []


def test_kill_minus_nine(whole, tmp_path):
    """A process that is killed in the middle of a search, with the lock it leaves."""
    code = f"""
import os, sys
from greedy_enlarge.families import base
from greedy_enlarge.search.greedy import search, Settings
from greedy_enlarge.search.evaluators import Synthetic
from greedy_enlarge.search.journal import Journal
from greedy_enlarge.search.moves import Moves
seen = []
class Dying(Synthetic):
    def evaluate(self, task):
        seen.append(task)
        if len(seen) == 9:
            os.kill(os.getpid(), 9)
        return super().evaluate(task)
with Journal.open(sys.argv[1], {CONFIG!r}) as journal:
    search(base("tiny"), {BUDGET}, Dying(), Settings(steps=3, delta=0.1, delta_final=0.1, moves=Moves(width_step=4)),
           journal=journal)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert (tmp_path / "lock").exists()
    told = []
    evaluator = Counting()
    with Journal.open(tmp_path, CONFIG, told.append) as journal:
        search(SPEC, BUDGET, evaluator, SETTINGS, journal=journal)
    assert any("taking over" in line for line in told)
    assert len(evaluator.seen) == whole[0] - 8
    assert (tmp_path / DECISIONS).read_bytes() == whole[1]


KILLER = f"""
import os, sys
from pathlib import Path
from greedy_enlarge.families import base
from greedy_enlarge.search.greedy import search, Settings
from greedy_enlarge.search.evaluators import Synthetic
from greedy_enlarge.search.journal import Journal
from greedy_enlarge.search.moves import Moves

root, calls, at = Path(sys.argv[1]), 0, None

def dying(name, original):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == at:
            if name == "write":
                original(args[0], args[1][: len(args[1]) // 2])
            os.kill(os.getpid(), 9)
        return original(*args, **kwargs)
    return call

for name in ("write", "fsync", "replace", "unlink"):
    setattr(os, name, dying(name, getattr(os, name)))

def go(folder):
    with Journal.open(folder, {CONFIG!r}) as journal:
        search(base("tiny"), {BUDGET}, Synthetic(), Settings(steps=3, delta=0.1, delta_final=0.1,
               moves=Moves(width_step=4)), journal=journal)

go(root / "whole")
total, killed = calls, 0
for moment in range(1, total + 1):
    child = os.fork()
    if child == 0:
        calls, at = 0, moment
        go(root / str(moment))
        os._exit(0)
    killed += os.waitpid(child, 0)[1] == 9
print(total, killed)
"""


def test_kill_minus_nine_at_any_moment(whole, tmp_path):
    """Processes that die at each of their writes (in the middle of the line), syncs, renames and removals."""
    done = subprocess.run([sys.executable, "-c", KILLER, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    total, killed = map(int, done.stdout.split())
    assert total == killed > 2 * whole[0]
    for moment in range(1, total + 1):
        folder = tmp_path / str(moment)
        content = (folder / FILE).read_bytes() if (folder / FILE).exists() else b""
        finished = content[: content.rfind(b"\n") + 1].count(b'"kind": "result"')
        evaluator = Counting()
        run(folder, evaluator)
        assert len(evaluator.seen) == whole[0] - finished, moment
        assert (folder / DECISIONS).read_bytes() == whole[1], moment
        keys = [r["key"] for r in read_records(folder / FILE)[0] if r["kind"] == "result"]
        assert len(keys) == len(set(keys)) == whole[0]


def test_the_order_of_completion_does_not_matter(whole, tmp_path):
    class Backwards(Executor):
        """Finishes what was submitted last first."""

        def __init__(self):
            self.waiting = []

        def submit(self, fn, /, *args, **kwargs):
            future = Future()
            self.waiting.append((future, fn, args))
            if len(self.waiting) >= 3:
                self.finish()
            return future

        def finish(self):
            while self.waiting:
                future, fn, args = self.waiting.pop()
                future.set_result(fn(*args))

    executor = Backwards()
    import greedy_enlarge.search.running as running

    original = running.wait

    def wait(futures, return_when):
        executor.finish()
        return original(futures, return_when=return_when)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "wait", wait)
        run(tmp_path, Synthetic(), executor)
    assert (tmp_path / DECISIONS).read_bytes() == whole[1]


def test_processes_decide_as_one_does(whole, tmp_path):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        run(tmp_path, Synthetic(), executor)
    assert (tmp_path / DECISIONS).read_bytes() == whole[1]


class Dying(Executor):
    """Loses the worker of every candidate that deepens the second stage."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        if args[1].spec.depths[1] > 1:
            future.set_exception(WorkerDied("killed by signal 9"))
        else:
            future.set_result(fn(*args))
        return future


def test_a_candidate_whose_worker_dies_is_left_out(tmp_path):
    depth = Settings(steps=1, delta=0.3, delta_final=0.1, moves=Moves(width_step=4, kinds=("depth",)))
    with Journal.open(tmp_path, CONFIG) as journal:
        found = search(SPEC, 230_000, Synthetic(), depth, executor=Dying(), journal=journal)
    assert found.steps[0].failed == (("depth_2", "WorkerDied: killed by signal 9"),)
    assert found.spec.depths[1] == 1
    failures = [r for r in read_records(tmp_path / FILE)[0][1:] if r["result"]["status"] == "failed"]
    assert len(failures) == 2


def test_another_config_is_refused_naming_the_keys(tmp_path):
    with Journal.open(tmp_path, CONFIG):
        pass
    other = {**CONFIG, "seed": 1, "moves": {"width_step": 8}}
    with pytest.raises(UserError) as error, Journal.open(tmp_path, other):
        pass
    assert "moves.width_step (4 there, 8 now), seed (0 there, 1 now)" in str(error.value)


def test_a_second_process_is_refused_by_name(tmp_path):
    code = (
        "import sys\nfrom greedy_enlarge.search.journal import Journal\n"
        f"with Journal.open(sys.argv[1], {CONFIG!r}):\n    pass\n"
    )
    with Journal.open(tmp_path, CONFIG):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"process {os.getpid()} on" in done.stderr
    assert "journal=" in done.stderr


def filed(folder, *names):
    with Journal.open(folder, CONFIG) as journal:
        for name in names:
            journal.add(name, Result({"score": 1.0}))


def test_a_line_without_its_end_is_neither_cut_nor_read(tmp_path):
    filed(tmp_path, "a")
    path = tmp_path / FILE
    before = path.read_bytes()
    line = json.dumps({"kind": "result", "key": "b", "result": Result({"score": 2.0}).to_dict()}).encode()
    for torn in (line[:20], line, b"\xff\xfe"):  # a whole record, even: another process may be about to end it
        path.write_bytes(before + torn)
        records, end, size = read_records(path)
        assert (len(records), end, size) == (2, len(before), len(before) + len(torn))
        told = []
        with Journal.open(tmp_path, CONFIG, told.append) as journal:
            assert set(journal.results) == {"a"}
            journal.add("c", Result({"score": 3.0}))
        assert len(told) == 1
        assert path.read_bytes().startswith(before + torn + b"\n")
        for _ in range(2):  # and not later either
            with Journal.open(tmp_path, CONFIG, told.append) as journal:
                assert set(journal.results) == {"a", "c"}
        assert len(told) == 1


def test_a_damaged_line_is_refused_by_number(tmp_path):
    filed(tmp_path, "a", "b")
    path = tmp_path / FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"garbage\n" + lines[2])
    with pytest.raises(UserError, match="damaged in line 2"), Journal.open(tmp_path, CONFIG):
        pass
    path.write_bytes(b"".join(lines[1:]))
    with pytest.raises(UserError, match="does not begin with a config"), Journal.open(tmp_path, CONFIG):
        pass


def test_equal_tasks_are_evaluated_once():
    evaluator = Counting()
    task = Task.make(0, SPEC, 1, 0)
    first, second = Runner(evaluator).run([task, task])
    assert first == second
    assert len(evaluator.seen) == 1


def test_a_result_depends_on_all_that_its_key_names():
    task = Task.make(0, SPEC, 1, 0)
    others = [
        Task.make(1, SPEC, 1, 0), Task.make(0, SPEC, 2, 0), Task.make(0, SPEC, 1, 1),
        Task.make(0, SPEC, 1, 0, samples=5), Task.make(0, SPEC, 1, 0, parent=SPEC),
        Task.make(0, SPEC, 1, 0, parent=SPEC, parent_state="x"), Task.make(0, SPEC, 1, 0, continues="x"),
        Task.make(0, SPEC.replace(resolution=32), 1, 0),
    ]  # fmt: skip
    keys = {t.key({"name": "a"}) for t in [task, *others]} | {task.key({"name": "b"})}
    assert len(keys) == len(others) + 2
