"""Long jobs that are killed at random moments until they are done: nothing lost, nothing done twice, every status true.

    uv run pytest tests/test_kills.py --slow -n 0                                              one kill of each kind
    EFFKIT_KILLS=all EFFKIT_KILLS_CSV=kills.csv uv run pytest tests/test_kills.py --slow -n 0  fifty, one row each

A job is killed, started again with the same words, and so on until it ends by itself; then what it wrote is compared
with what a job wrote that nobody killed: weights and rows to the bit, caches byte for byte, figures of reports.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from effkit.provenance import commit_hash, cpu_name
from effkit.testing.slurm import LocalSlurm, why_no_slurm
from effkit.testing.training import rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc"),
    pytest.mark.timeout(3600),  # dozens of runs, each started anew and anew
]

ALL = {"train": 12, "rank": 8, "distill": 8, "cache": 6, "worker": 4, "reproduce": 5, "requeue": 5, "node": 2}
KILLS = ALL if os.environ.get("EFFKIT_KILLS") == "all" else dict.fromkeys(ALL, 1)
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}
TINY = ["model=tnt_digits", "model.depth=1", "threads=1", "trainer=cpu", "data.limit=64", "data.batch_size=8"]
OFTEN = "checkpoint_minutes=0.001"
GUESSES = "guessing_teacher=true"  # the teacher here is one of two epochs
POLITE = ("SIGTERM", "SIGUSR2", "SIGINT")


@dataclass
class Victims:
    """What was killed, a row each."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, kind: str, victim: str, name: str, moment: float, told: str) -> None:
        """Note one."""
        number = len(self.rows) + 1
        row = {"number": number, "job": kind, "victim": victim, "signal": name, "seconds_after_start": f"{moment:.2f}"}
        self.rows.append({**row, "status_after": told, "in_the_end": ""})

    def held(self, kind: str, what: str) -> None:
        """The job of all kills of a kind so far ended as it should."""
        for row in self.rows:
            if row["job"] == kind and not row["in_the_end"]:
                row["in_the_end"] = what


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    found = Victims()
    yield found
    if path := os.environ.get("EFFKIT_KILLS_CSV"):
        here = {"machine": f"{cpu_name()}, {os.cpu_count()} cores", "commit": commit_hash(__file__)}
        with Path(path).open("w", newline="") as file:
            writer = csv.DictWriter(file, [*found.rows[0], *here])
            writer.writeheader()
            writer.writerows({**row, **here} for row in found.rows)


@dataclass
class Job:
    """A command that is started again until it ends by itself.

    Attributes:
        kind: For messages and rows.
        argv: The command.
        folder: Where it runs.
        state: Its status.json; None if it keeps none.
        lasts: Seconds of a run that nobody kills; moments are drawn from them.
    """

    kind: str
    argv: list[str]
    folder: Path
    state: Path | None
    lasts: float

    @property
    def said(self) -> Path:
        return self.folder / f"{self.kind}.err"

    def start(self) -> subprocess.Popen[bytes]:
        self.folder.mkdir(exist_ok=True)
        with self.said.open("a") as file:
            return subprocess.Popen(
                self.argv, cwd=self.folder, env=ENV, stdout=file, stderr=file, start_new_session=True
            )

    def status(self) -> str:
        if self.state is None or not self.state.exists():
            return ""
        return str(json.loads(self.state.read_text())["status"])


def session(pid: int) -> list[int]:
    """The processes of a job, its first one not among them, nor those that only watch over shared memory."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            number = int(entry.name)
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            words = (entry / "cmdline").read_bytes()
            if int(stat[3]) == pid != number and stat[0] != "Z" and b"resource_tracker" not in words:
                found.append(number)
    return sorted(found)


def chain(job: Job, kills: int, seed: int, victims: Victims, names: list[str], of: str = "command") -> int:
    """Kill a job at random moments until it was hit often enough or ends by itself; then let it end.

    Returns:
        How often it was hit.
    """
    numbers = random.Random(seed)
    hit = 0
    while hit < kills:
        process = job.start()
        began = time.monotonic()
        moment = numbers.uniform(0.3, job.lasts)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=moment)
        others = session(process.pid) if of != "command" else []
        if process.poll() is not None:
            break  # it was faster
        if of != "command" and not others:
            process.kill()  # no worker yet: as good a victim
            name, pid = "SIGKILL", process.pid
        else:
            name, pid = names[hit % len(names)], process.pid if of == "command" else numbers.choice(others)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, getattr(signal, name))
        code = process.wait(timeout=240)
        deadline = time.monotonic() + 60
        while left := session(process.pid):
            assert time.monotonic() < deadline, f"{job.kind}: {left} live on, {job.said.read_text()[-2000:]}"
            time.sleep(0.1)
        told = job.status()
        victims.add(
            job.kind, of if pid != process.pid else "command", name, time.monotonic() - began, told or "none yet"
        )
        hit += 1
        if code == 0:
            assert told in ("finished", ""), told
            break  # whom we killed was replaced, or had done its part
        if told == "finished":  # it had done its work, and was on its way out
            continue
        if name in POLITE and pid == process.pid:
            expected = ("interrupted", "")
        elif pid == process.pid:
            expected = ("running", "interrupted", "failed", "")  # nobody could write after SIGKILL; the process is gone
        else:
            expected = ("failed", "interrupted", "running", "")
        assert told in expected, (name, told, job.said.read_text()[-2000:])
        assert "Traceback" not in job.said.read_text(), job.said.read_text()[-3000:]
    if process.poll() != 0:
        process = job.start()
        assert process.wait(timeout=600) == 0, job.said.read_text()[-3000:]
    assert job.status() in ("finished", "")
    return hit


def until_hit(
    make: Callable[[int], tuple[Job, Callable[[], None]]], victims: Victims, names: list[str], of: str
) -> None:
    """One job after another until the kills of a kind are spent; each is compared when it is done."""
    left, turn = KILLS[make(0)[0].kind], 0
    while left > 0:
        job, compare = make(turn)
        left -= chain(job, min(left, 4), 100 * turn + len(job.kind), victims, names[turn % len(names) :] + names, of)
        compare()
        victims.held(job.kind, "equal")
        turn += 1
        assert turn < 60, f"{job.kind}: is never hit"


def timed(words: list[str], folder: Path) -> float:
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(words, cwd=folder, env=ENV, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - began


def same_run(folder: Path, other: Path) -> None:
    assert rows(folder) == rows(other)
    mine, theirs = (
        torch.load(p / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for p in (folder, other)
    )
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in mine.items())
    assert json.loads((folder / "status.json").read_text())["status"] == "finished"


def training(kind: str, argv: list[str], root: Path) -> Callable[[int], tuple[Job, Callable[[], None]]]:
    lasts = timed([*argv, "hydra.run.dir=run"], root / "whole")

    def make(turn: int) -> tuple[Job, Callable[[], None]]:
        folder = root / str(turn)
        job = Job(kind, [*argv, "hydra.run.dir=run", "resume=auto", OFTEN], folder, folder / "run/status.json", lasts)
        return job, lambda: same_run(folder / "run", root / "whole" / "run")

    return make


def test_a_training(tmp_path: Path, victims: Victims) -> None:
    make = training("train", [sys.executable, "-m", "tnt_vit", "train", *TINY, "trainer.max_epochs=12"], tmp_path)
    until_hit(make, victims, ["SIGKILL", "SIGTERM", "SIGUSR2", "SIGINT"], "command")


def test_a_rank_of_two(tmp_path: Path, victims: Victims) -> None:
    words = ["train", *TINY, "trainer.max_epochs=8", "trainer.devices=2", "trainer.strategy=ddp"]
    make = training("rank", [sys.executable, "-m", "tnt_vit", *words], tmp_path)
    until_hit(make, victims, ["SIGKILL"], "rank")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    words = ["train", "experiment=digits_teacher", "data.limit=96", "trainer.max_epochs=2", "threads=1", "trainer=cpu"]
    folder = tmp_path_factory.mktemp("teacher")
    timed([sys.executable, "-m", "kd_autoaug", *words, "hydra.run.dir=run"], folder)
    return f"teacher.weights={folder / 'run'}"


def test_a_distillation_with_a_cache(tmp_path: Path, victims: Victims, teacher: str) -> None:
    words = [
        "experiment=digits_kd",
        teacher,
        GUESSES,
        "data.limit=96",
        "data.batch_size=32",
        "trainer=cpu",
        "threads=1",
    ]
    words += ["trainer.max_epochs=10", "view.num_views=4", "data.drop_last=false"]
    argv = [sys.executable, "-m", "kd_autoaug", "distill", *words, "cache.path=cache", "cache.mode=readwrite"]
    until_hit(training("distill", argv, tmp_path), victims, ["SIGKILL", "SIGTERM", "SIGUSR2"], "command")


def content(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(cache.iterdir()) if path.is_file()}


@pytest.mark.parametrize(("kind", "of"), [("cache", "command"), ("worker", "worker")])
def test_a_cache_of_two_workers(tmp_path: Path, victims: Victims, teacher: str, kind: str, of: str) -> None:
    words = [
        "experiment=digits_kd",
        teacher,
        GUESSES,
        "view.num_views=40",
        "batch_size=64",
        "device=cpu",
        "cache.path=cache",
    ]
    argv = [sys.executable, "-m", "kd_autoaug", "cache", "build", *words]
    timed(argv, tmp_path / "whole")
    argv += ["executor=process", "workers=2"]
    lasts = timed(argv, tmp_path / "two")
    whole = content(tmp_path / "whole" / "cache")
    assert content(tmp_path / "two" / "cache") == whole

    def make(turn: int) -> tuple[Job, Callable[[], None]]:
        folder = tmp_path / str(turn)

        def compare() -> None:
            assert content(folder / "cache") == whole
            assert sorted(p.name for p in folder.iterdir()) == sorted({"cache", f"{kind}.err"})

        return Job(kind, argv, folder, None, lasts), compare

    until_hit(make, victims, ["SIGKILL", "SIGTERM"] if of == "command" else ["SIGKILL"], of)


def figures(output: Path) -> list[tuple[Any, ...]]:
    """What a report found about every row and every part of the claim; how long things took is another each time."""
    (paper,) = json.loads((output / "results.json").read_text())["papers"]
    found = [*paper["outcomes"], *paper["claim"]["outcomes"]]
    assert len(found) > 100
    return [(o["table"], o["name"], o["metric"], o["ours"], o["verdict"]) for o in found if o["unit"] != "s"]


def test_a_reproduction(tmp_path: Path, victims: Victims) -> None:
    argv = [str(Path(sys.executable).with_name("effkit")), "reproduce", "papers=[tnt-vit]", "jobs=2", "output=report"]
    lasts = timed(argv, tmp_path / "whole")
    whole = figures(tmp_path / "whole" / "report")

    def make(turn: int) -> tuple[Job, Callable[[], None]]:
        folder = tmp_path / str(turn)

        def compare() -> None:
            assert figures(folder / "report") == whole

        return Job("reproduce", argv, folder, None, lasts), compare

    until_hit(make, victims, ["SIGKILL", "SIGTERM"], "command")


# --- clusters ---------------------------------------------------------------------------------------------------------


def test_a_job_that_slurm_takes_off_its_node(tmp_path: Path, victims: Victims) -> None:
    if reason := why_no_slurm():
        pytest.skip(reason)
    words = [sys.executable, "-m", "tnt_vit", "train", *TINY, "trainer.max_epochs=30", OFTEN]
    lasts = timed([*words, "hydra.run.dir=run"], tmp_path / "whole")
    place = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = LocalSlurm(place)
    numbers = random.Random(3)
    try:
        cluster.start()
        left, turn = KILLS["requeue"], 0
        while left > 0:
            folder = tmp_path / str(turn)
            folder.mkdir()
            argv = [*words, "-m", "seed=0", "hydra/launcher=slurm", "hydra.sweep.dir=sweep"]
            with (folder / "err").open("w") as said:
                sweep = subprocess.Popen(
                    argv,
                    cwd=folder,
                    env={**ENV, **cluster.environment},
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                )
            for _ in range(min(left, 3)):
                job = _running(cluster, sweep)
                if job is None:
                    break
                moment = numbers.uniform(0.3, lasts)
                time.sleep(moment)
                way = numbers.choice(["SIGUSR2", "requeue"])
                said_so = cluster.ask("squeue", "--noheader", f"--jobs={job}", "--format=%A").strip()
                if not said_so:
                    break  # it was faster
                if way == "SIGUSR2":
                    cluster.ask("scancel", "--signal=USR2", job)
                else:
                    cluster.ask("scontrol", "requeue", job)
                state = folder / "sweep" / "0" / "status.json"
                _waiting(cluster, job, sweep)
                told = json.loads(state.read_text())["status"] if state.exists() else "none yet"
                victims.add("requeue", "job of SLURM", way, moment, told)
                left -= 1
            assert sweep.wait(timeout=400) == 0, (folder / "err").read_text()[-3000:]
            same_run(folder / "sweep" / "0", tmp_path / "whole" / "run")
            victims.held("requeue", "equal")
            turn += 1
            assert turn < 20, "requeue: is never hit"
    finally:
        cluster.stop()
        shutil.rmtree(place, ignore_errors=True)


def _running(cluster: LocalSlurm, sweep: subprocess.Popen[bytes]) -> str | None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and sweep.poll() is None:
        if found := cluster.ask("squeue", "--noheader", "--states=RUNNING", "--format=%A").split():
            return found[0]
        time.sleep(0.2)
    return None


def _waiting(cluster: LocalSlurm, job: str, sweep: subprocess.Popen[bytes]) -> None:
    """Wait until the job is in the queue again (then bring it forward: SLURM would let it wait for two minutes)."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and sweep.poll() is None:
        states = cluster.ask("squeue", "--noheader", f"--jobs={job}", "--format=%T").split()
        if not states or states == ["PENDING"]:
            break
        time.sleep(0.2)
    deadline = time.monotonic() + 30
    while cluster.ask("squeue", "--noheader", "--states=PENDING", f"--jobs={job}", "--format=%A").split():
        cluster.ask("scontrol", "update", f"JobId={job}", "StartTime=now")
        assert time.monotonic() < deadline, f"job {job} waits: {cluster.logs()}"
        time.sleep(0.5)


def test_a_node_that_ray_loses(tmp_path: Path, victims: Victims, teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'effkit[ray]'")
    words = [
        "cache",
        "build",
        "experiment=digits_kd",
        teacher,
        GUESSES,
        "view.num_views=40",
        "batch_size=64",
        "device=cpu",
    ]
    words += ["cache.path=cache"]
    argv = [sys.executable, "-m", "kd_autoaug", *words]
    timed(argv, tmp_path / "whole")
    whole = content(tmp_path / "whole" / "cache")
    token = {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    for name, value in {**token, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    numbers = random.Random(5)
    with tempfile.TemporaryDirectory(prefix="ray-") as place:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "temp_dir": place, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for turn in range(KILLS["node"]):
                node = cluster.add_node(num_cpus=1)
                cluster.wait_for_nodes()
                folder = tmp_path / str(turn)
                folder.mkdir()
                with (folder / "err").open("w") as said:
                    build = subprocess.Popen(
                        [*argv, "executor=ray", f"ray.address={cluster.address}", "workers=2"],
                        cwd=folder, env=dict(os.environ), stdout=said, stderr=said, start_new_session=True,
                    )  # fmt: skip
                began = time.monotonic()
                while not list(folder.glob(".cache.*")) and build.poll() is None:
                    time.sleep(0.05)
                time.sleep(numbers.uniform(0, 8))
                alive = build.poll() is None
                cluster.remove_node(node, allow_graceful=False)
                victims.add("node", "node of Ray", "SIGKILL", time.monotonic() - began, "running" if alive else "ended")
                code = build.wait(timeout=300)
                if code != 0:  # a shard that died with its node twice over is named; the same words go on
                    said_text = (folder / "err").read_text()
                    assert "Traceback" not in said_text, said_text
                    assert subprocess.run([*argv, "executor=serial"], cwd=folder, env=ENV, check=False).returncode == 0
                assert content(folder / "cache") == whole
                victims.held("node", "equal")
        finally:
            cluster.shutdown()
            os.environ.pop("RAY_AUTH_MODE", None)  # Ray sets it
