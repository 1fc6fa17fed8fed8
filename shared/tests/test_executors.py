"""The same results from every executor: whoever finishes first, whoever dies, and whatever a task does wrong."""

import gc
import importlib.util
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from effkit.errors import UserError
from effkit.executors import Choice, Task, TaskError, WorkerDied, run
from effkit.executors.threads import divided
from effkit.progress import listening

# What workers can import: a module on the path, as a package's would be.
TASKS = """
import os, random, signal, subprocess, sys, time
from pathlib import Path

def double(x):
    return 2 * x

def late(x, of):
    time.sleep(0.1 * (of - x))
    return x

def draw(x):
    import numpy as np, torch
    return random.random(), float(np.random.rand()), float(torch.rand(()))

def facts(x):
    import torch
    torch.set_num_threads(torch.get_num_threads())
    return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], "random" in sys.modules

def die_once(folder, x):
    first = Path(folder, str(x))
    if x == 1 and not first.exists():
        first.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x

def leave(x):
    os._exit(3)

def leave_at(x, which):
    if x in which:
        os._exit(3)
    return x

def wrong(x, which):
    if x in which:
        raise ZeroDivisionError(f"number {x}\\nand more")
    return x

def mistaken(x):
    from effkit.errors import UserError
    raise UserError(f"x={x} must be less")

def odd(x):
    class Local(Exception):
        pass
    raise Local("cannot be pickled")

def unpicklable(x):
    return lambda: x

def leaves_by_exit(x):
    raise SystemExit("enough")

def nested(x):
    from effkit.executors import Choice, Task, run
    choice = Choice("process", workers=2)
    with choice.open() as pool:
        return type(pool).__name__, list(run(pool, double, [Task("a", x)]))

def sleeps(folder):
    child = subprocess.Popen(["sleep", "60"])
    Path(folder, f"{os.getpid()}").write_text(str(child.pid))
    time.sleep(60)
"""

needs_processes = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
HAS = {"ray": importlib.util.find_spec("ray") is not None, "submitit": importlib.util.find_spec("submitit") is not None}
EXECUTORS = [
    "serial",
    "process",
    pytest.param(
        "ray",
        marks=[pytest.mark.slow, pytest.mark.skipif(not HAS["ray"], reason="ray is not installed: the extra ray")],
    ),
    pytest.param(
        "submitit",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(not HAS["submitit"], reason="submitit is not installed: the extra launchers"),
        ],
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the module that workers import."""
    folder = tmp_path_factory.mktemp("executors")
    (folder / "tasks_of_tests.py").write_text(TASKS)
    return folder


@pytest.fixture(scope="module")
def tasks(folder):
    """The module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        import tasks_of_tests

        yield tasks_of_tests
        del sys.modules["tasks_of_tests"]


def chosen(name: str, folder: Path, workers: int = 2, threads: int | None = 2) -> Choice:
    return Choice(
        name,
        None if name == "serial" else workers,
        threads=threads,
        submitit={"cluster": "local"} if name == "submitit" else {},
        folder=folder / "jobs",
    )


@pytest.fixture(scope="module")
def pools(folder, tasks):
    """One executor of each kind for the tests that only use it: starting one takes seconds."""
    made = {}

    def pool(name):
        if name not in made:
            made[name] = chosen(name, folder).open()
        return made[name]

    yield pool
    for opened in made.values():
        opened.shutdown()


def numbered(count: int, *more) -> list[Task]:
    return [Task(f"task {number}", number, *more) for number in range(count)]


@pytest.fixture
def alive():
    def there(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    return there


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


# Results


@pytest.mark.parametrize("name", EXECUTORS)
def test_results_are_in_order_and_generators_do_not_depend_on_the_worker(tasks, pools, name):
    pool = pools(name)
    assert list(run(pool, tasks.double, numbered(5))) == [0, 2, 4, 6, 8]
    assert list(pool.map(tasks.double, range(3))) == [0, 2, 4]  # an executor like any other
    state = random.getstate()
    drawn = list(run(pool, tasks.draw, numbered(3), seed=7))
    assert random.getstate() == state
    assert drawn == list(run(pools("serial"), tasks.draw, numbered(3), seed=7))
    assert len(set(drawn)) == 3
    backwards = list(run(pools("serial"), tasks.draw, numbered(3)[::-1], seed=7))
    assert backwards == drawn[::-1]  # a task's draws are its own, whatever ran before it


@pytest.mark.parametrize("name", ["process", *EXECUTORS[2:]])
def test_who_is_done_first_does_not_matter(tasks, pools, name):
    order: list[int] = []
    results = run(pools(name), tasks.late, numbered(3, 3), finished=lambda number, result: order.append(number))
    assert list(results) == [0, 1, 2]
    assert sorted(order) == [0, 1, 2]


def test_tasks_finish_out_of_order_and_a_window_holds_them_back(tasks, pools):
    order: list[int] = []
    pool = pools("process")
    first = numbered(1, 9) + [Task(f"quick {n}", 9, 9) for n in range(5)]
    assert list(run(pool, tasks.late, first, finished=lambda n, r: order.append(n))) == [0] + [9] * 5
    assert order[-1] == 0
    order.clear()
    assert list(run(pool, tasks.late, first, finished=lambda n, r: order.append(n), window=2)) == [0] + [9] * 5
    assert order[:2] == [1, 0]


def test_threads_are_divided(tasks, folder):
    assert [divided(8, 2), divided(8, 3), divided(1, 4)] == [4, 2, 1]
    for threads, each in ((2, 1), (4, 2)):  # MKL takes no more than there are cores
        with Choice("process", workers=2, threads=threads).open() as pool:
            assert pool.threads == each
            assert list(run(pool, tasks.facts, numbered(1))) == [(each, str(each), True)]


def test_progress_counts_tasks(tasks, pools):
    told: list[tuple[str, float | None]] = []
    with listening(lambda text, fraction: told.append((text, fraction))):
        list(run(pools("process"), tasks.double, numbered(2)))
    assert ("2 of 2 done", 1.0) in told
    assert [fraction for _, fraction in told] == sorted(fraction for _, fraction in told)


def test_a_worker_that_starts_workers_runs_them_itself(tasks, pools):
    assert list(run(pools("process"), tasks.nested, numbered(1))) == [("SerialExecutor", [0])]


# Deaths and exceptions


@pytest.mark.parametrize("name", ["process", *EXECUTORS[2:]])
def test_a_worker_that_dies_is_replaced_once(tasks, tmp_path, folder, name):
    told: list[str] = []
    with chosen(name, folder).open(tell=told.append) as pool:
        work = [Task(f"part {n}", str(tmp_path), n) for n in range(3)]
        assert list(run(pool, tasks.die_once, work)) == [0, 1, 2]
        assert len(told) == 1
        assert told[0].startswith("part 1: its worker died (")
        assert told[0].endswith("), running it once more")
        if name == "process":
            assert "killed by SIGKILL" in told[0]
        with pytest.raises(TaskError, match=r"^part a: its worker died twice, ") as caught:
            list(run(pool, tasks.leave, [Task("part a", 0)]))
        assert caught.value.died
        assert isinstance(caught.value.__cause__, WorkerDied)
        assert list(run(pool, tasks.double, numbered(2))) == [0, 2]  # and goes on


def test_only_the_task_of_the_dead_worker_runs_again(tasks, pools, tmp_path):
    found = list(run(pools("process"), tasks.leave_at, numbered(6, (2, 4)), keep_going=True))
    assert [f for f in found if not isinstance(f, TaskError)] == [0, 1, 3, 5]
    assert [str(f) for f in found if isinstance(f, TaskError)] == [
        f"task {n}: its worker died twice, ended early with exit code 3" for n in (2, 4)
    ]


@pytest.mark.parametrize("name", EXECUTORS)
def test_an_exception_is_one_line_with_its_own_traceback(tasks, pools, name):
    pool = pools(name)
    with pytest.raises(TaskError, match=r"^task 2: ZeroDivisionError: number 2 and more$") as caught:
        list(run(pool, tasks.wrong, numbered(3, (2,))))
    assert "raise ZeroDivisionError" in caught.value.trace
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(UserError, match=r"^x=0 must be less$"):
        list(run(pool, tasks.mistaken, numbered(1)))
    with pytest.raises(TaskError, match=r"task 0: .*cannot be pickled"):
        list(run(pool, tasks.odd, numbered(1)))


def test_the_first_in_order_that_fails_is_told(tasks, pools):
    for name in ("serial", "process"):
        with pytest.raises(TaskError, match=r"^task 1: "):
            list(run(pools(name), tasks.wrong, numbered(9, (7, 5, 1))))
    found = list(run(pools("process"), tasks.wrong, numbered(4, (0, 2)), keep_going=True))
    assert [str(f) if isinstance(f, TaskError) else f for f in found] == [
        "task 0: ZeroDivisionError: number 0 and more", 1, "task 2: ZeroDivisionError: number 2 and more", 3
    ]  # fmt: skip


def test_what_cannot_come_back_or_leaves_is_named(tasks, pools):
    pool = pools("process")
    with pytest.raises(TaskError, match=r"^task 0: .*pickle"):
        list(run(pool, tasks.unpicklable, numbered(1)))
    with pytest.raises(TaskError, match=r"^task 0: SystemExit: enough"):
        list(run(pool, tasks.leaves_by_exit, numbered(1)))


def test_what_cannot_be_sent_is_refused_in_one_line(tasks, pools, monkeypatch):
    pool = pools("process")
    with pytest.raises(UserError, match=r"^executor=process: a name cannot be sent to another process \(.*top of"):
        list(run(pool, lambda x: x, [Task("a name", 1)]))
    with pytest.raises(UserError, match="a name cannot be sent to another process"):
        list(run(pool, tasks.double, [Task("a name", (n for n in range(3)))]))
    monkeypatch.setattr(tasks.double, "__module__", "__main__")
    with pytest.raises(UserError, match="double is defined in the program itself"):
        list(run(pool, tasks.double, numbered(1)))
    assert list(run(pools("serial"), lambda x: x, numbered(2))) == [0, 1]  # nothing is sent


# Mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"executor": "proces"}, r"executor='proces' is not known, choose one of serial, .*did you mean 'process'"),
        ({"executor": "process", "workers": 0}, "workers=0 must be a whole number of at least 1"),
        ({"executor": "process", "workers": True}, "workers=True must be"),
        ({"executor": "process", "workers": 2.0}, r"workers=2\.0 must be"),
        ({"executor": "process", "workers": 99_999_999}, "workers=99999999 must be at most 4096"),
        ({"executor": "process", "threads": 0}, "threads=0 must be"),
        ({"ray": {"address": "head:1"}}, r"ray\.address='head:1' needs executor=ray: leave it out"),
        ({"executor": "ray", "submitit": {"minutes": 5}}, r"submitit\.minutes=5 needs executor=submitit"),
        ({"executor": "ray", "ray": {"gpus": -1}}, r"ray\.gpus=-1 must be at least 0"),
        ({"executor": "ray", "ray": {"gpus": "two"}}, r"ray\.gpus='two' must be a number"),
        ({"executor": "submitit", "submitit": {"minutes": 0}}, r"submitit\.minutes=0 must be at least 1"),
        ({"executor": "submitit", "submitit": {"partitoin": "a"}}, "submitit key='partitoin' is not known"),
        ({"workers": 2}, r"workers=2 needs an executor other than serial: executor=process\|ray\|submitit"),
    ],
)
def test_mistakes_are_named(words, message):
    with pytest.raises(UserError, match=message):
        Choice(**words)


@pytest.mark.parametrize(("executor", "extra"), [("ray", "ray"), ("submitit", "launchers")])
def test_what_is_not_installed_says_how_to_install_it(monkeypatch, tmp_path, executor, extra):
    monkeypatch.setitem(sys.modules, executor, None)  # as if it were not there
    with pytest.raises(
        UserError, match=rf"^executor={executor} needs {executor}, .*: pip install 'effkit\[{extra}\]'$"
    ):
        Choice(executor, folder=tmp_path).open()


# The debug executor of submitit leaves its log files to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*unclosed file", "ignore:.*_log.(out|err):pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(not HAS["submitit"], reason="submitit is not installed: the extra launchers")
def test_submitit_runs_here_for_a_trial_and_refuses_what_is_not_there(tasks, tmp_path, monkeypatch):
    environment = dict(os.environ)
    with Choice("submitit", workers=2, submitit={"cluster": "debug"}, folder=tmp_path / "jobs").open() as pool:
        assert list(run(pool, tasks.double, numbered(3))) == [0, 2, 4]
    gc.collect()
    assert dict(os.environ) == environment
    assert not (tmp_path / "jobs").exists()
    with pytest.raises(UserError, match="needs a folder"):
        Choice("submitit", submitit={"cluster": "local"}).open()
    with pytest.raises(UserError, match=r"submitit\.cluster='slrum' is not known.*did you mean 'slurm'"):
        Choice("submitit", submitit={"cluster": "slrum"}, folder=tmp_path).open()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"submitit\.cluster=slurm: sbatch is not on the path"):
        Choice("submitit", submitit={"cluster": "slurm"}, folder=tmp_path).open()


needs_ray = pytest.mark.skipif(not HAS["ray"], reason="ray is not installed: the extra ray")


@needs_ray
def test_a_cluster_that_is_not_there_is_one_line():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"  # nobody listens
        start = time.monotonic()
        with pytest.raises(UserError, match=rf"^executor=ray: no Ray cluster answers at {place} .*within 10 s"):
            Choice("ray", ray={"address": place}).open()
        assert time.monotonic() - start < 30
    for address in ("nonsense", "127.0.0.1:port"):
        with pytest.raises(UserError, match=r"must be HOST:PORT, ray://HOST:PORT or auto"):
            Choice("ray", ray={"address": address}).open()
    assert sys.stdout is not sys.stderr


@needs_ray
@pytest.mark.slow
def test_something_else_that_listens_is_no_cluster():
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        place = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"^executor=ray: no Ray cluster answers at {place} .*10 s"):
            Choice("ray", ray={"address": place}).open()


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_runs_is_joined_and_left_running(tasks, folder):
    from ray.cluster_utils import Cluster

    # In a process of its own: a cluster outlives the executors that use it, and must not outlive this test.
    code = """
        import sys
        from ray.cluster_utils import Cluster
        from effkit.executors import Choice, Task, run
        import tasks_of_tests
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        for _ in range(2):
            with Choice("ray", workers=2, ray={"address": cluster.address}).open() as pool:
                print(list(run(pool, tasks_of_tests.double, [Task(str(n), n) for n in range(4)])))
        cluster.shutdown()
    """
    assert Cluster is not None
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=180, check=False,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert done.stdout == "[0, 2, 4, 6]\n" * 2, done.stderr


# Ends


@needs_processes
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("process", signal.SIGINT),
        ("process", signal.SIGKILL),
        pytest.param("submitit", signal.SIGINT, marks=EXECUTORS[3].marks),
        pytest.param("submitit", signal.SIGKILL, marks=EXECUTORS[3].marks),
    ],
)
def test_no_worker_outlives_the_program(tasks, folder, tmp_path, alive, name, number):
    code = f"""
        import sys
        from effkit.executors import Choice, Task, run
        import tasks_of_tests
        more = {{"submitit": {{"cluster": "local"}}}} if {name!r} == "submitit" else {{}}
        choice = Choice({name!r}, workers=2, **more, folder={str(tmp_path / "jobs")!r})
        with choice.open() as pool:
            list(run(pool, tasks_of_tests.sleeps, [Task(f"t{{n}}", sys.argv[1]) for n in range(4)]))
    """
    pids = tmp_path / "pids"
    pids.mkdir()
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(pids)],
        env={**os.environ, "PYTHONPATH": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: len([p for p in pids.iterdir() if p.read_text()]) == 2)
        started = [int(pid) for p in pids.iterdir() for pid in (p.name, p.read_text())]
        assert all(map(alive, started))
        program.send_signal(number)
        _, error = program.communicate(timeout=60)
        assert program.returncode == -number
        if number != signal.SIGKILL:  # then loky's own clean-up says what it found
            assert "leaked" not in error
        workers = started if name == "process" else started[::2]  # submitit's own clean-up: the worker alone
        wait_for(lambda: not any(map(alive, workers)), 20)
        assert len(list(pids.iterdir())) == 2  # what waited was not begun
    finally:
        program.kill()
        program.wait()
        for pid in pids.iterdir():
            for left in (pid.name, pid.read_text()):
                if alive(int(left)):
                    os.kill(int(left), signal.SIGKILL)


def test_a_command_tells_one_line_and_logs_the_traceback(demo, capfd, tmp_path):
    assert demo(["train", "fail=task", "hydra.run.dir=run"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[1:] == ["demo: error: shard 3 of 8: ZeroDivisionError: division by zero"]  # after progress
    log = (tmp_path / "run" / "train.log").read_text()
    assert "shard 3 of 8: ZeroDivisionError: division by zero" in log
    assert "return 1 / by" in log
    assert '"failed"' in (tmp_path / "run" / "status.json").read_text()
