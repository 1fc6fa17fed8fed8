"""A training that its launcher ends and starts again: nothing is lost, nothing done twice, every status is true."""

import json
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from effkit.testing import in_process
from effkit.testing.training import rows
from tnt_vit.cli import main

TINY = ["model=tnt_digits", "model.depth=1", "threads=1", "trainer=cpu", "data.limit=64", "data.batch_size=8"]
POSIX = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return in_process(main, tmp_path, monkeypatch, capfd)


def status(folder):
    return json.loads((folder / "status.json").read_text())


def weights(folder):
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return state["state_dict"]


def assert_same(folder, other):
    a, b = weights(folder), weights(other)
    assert set(a) == set(b)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert rows(folder) == rows(other)


def wait_until(condition, what, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def start(words, cwd, err, argv=(sys.executable, "-m", "tnt_vit"), env=ENV):
    with err.open("a") as file:
        return subprocess.Popen(
            [*argv, *map(str, words)], cwd=cwd, env=env, stdout=file, stderr=file, start_new_session=True
        )


def test_auto_begins_goes_on_and_stops_by_itself(run, tmp_path):
    words = ["train", *TINY, "hydra.run.dir=mine", "format=json", "scheduler=none"]
    code, out, err = run(*words, "resume=auto", "trainer.max_epochs=1")
    assert code == 0, err
    assert "resume=auto begins in " in err
    first = json.loads(out)["data"]
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "mine").rglob("*.json"))
    code, out, err = run(*words, "resume=auto", "trainer.max_epochs=1")
    assert code == 0, err
    assert "is finished" in err
    assert json.loads(out)["data"] == {k: v for k, v in first.items() if k in json.loads(out)["data"]}
    assert sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "mine").rglob("*.json")) == before
    code, _, err = run(*words, "resume=auto", "trainer.max_epochs=1", "optimizer.lr=0.5")
    assert code == 2
    assert "optimizer was {'lr':" in err
    code, out, err = run(*words, "resume=auto", "trainer.max_epochs=2")
    assert code == 0, err
    assert "resume=auto goes on with " in err
    assert json.loads(out)["data"]["epochs"] == 2
    code, _, err = run("eval", *TINY, "hydra.run.dir=mine", "run=mine")
    assert code == 2
    assert "holds a run already" in err


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody stops, of as many epochs as it takes to be hit."""
    folder = tmp_path_factory.mktemp("whole")
    words = ["train", *TINY, "trainer.max_epochs=12", "hydra.run.dir=run"]
    process = start(words, folder, folder / "err.txt")
    assert process.wait(timeout=600) == 0, (folder / "err.txt").read_text()
    return folder / "run"


@POSIX
@pytest.mark.slow
def test_a_preempted_job_of_submitit_goes_on_where_it_was(whole, tmp_path):
    """USR2 is what submitit takes for a preemption: it puts the job into the queue again, here at once."""
    words = ["train", "--multirun", *TINY, "trainer.max_epochs=12", "seed=0", "hydra/launcher=submitit_local"]
    process = start([*words, "hydra.sweep.dir=sweep"], tmp_path, tmp_path / "err.txt")
    folder = tmp_path / "sweep" / "0"
    hit = []
    for epoch, names in [(1, ["SIGUSR2"]), (5, ["SIGTERM", "SIGUSR2"])]:
        wait_until(lambda e=epoch: len(rows(folder)) > e, (tmp_path / "err.txt").read_text())
        pid = status(folder)["pid"]
        for name in names:
            os.kill(pid, getattr(signal, name))
        wait_until(lambda p=pid: status(folder)["pid"] != p, "the job was not started again")
        hit.append(pid)
    assert process.wait(timeout=600) == 0, (tmp_path / "err.txt").read_text()
    found = status(folder)
    assert (found["status"], found["pid"] not in hit, "resumed" in found) == ("finished", True, True)
    assert_same(folder, whole)
    log = "".join(p.read_text() for p in (tmp_path / "sweep" / ".submitit").rglob("*log.err"))
    assert "stopped by SIGUSR2; resume=" in log
    assert "started again: resume=auto goes on with" in log
    assert "Traceback" not in log


@POSIX
@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing_and_do_nothing_twice(whole, tmp_path):
    numbers = random.Random(7)
    words = ["train", *TINY, "trainer.max_epochs=12", "hydra.run.dir=run", "resume=auto", "checkpoint_minutes=0.001"]
    folder, names = tmp_path / "run", ["SIGKILL", "SIGTERM", "SIGUSR2", "SIGINT"]
    for attempt in range(4):
        process = start(words, tmp_path, tmp_path / "err.txt")
        done = len(rows(folder)) if folder.exists() else 0
        wait_until(lambda d=done, p=process: p.poll() is not None or len(rows(folder)) > d, "nothing is done any more")
        time.sleep(numbers.uniform(0, 0.5))
        name = names[attempt % len(names)]
        os.kill(process.pid, getattr(signal, name))
        code = process.wait(timeout=120)
        assert code in (0, -getattr(signal, name), 128 + getattr(signal, name)), (tmp_path / "err.txt").read_text()
        assert status(folder)["status"] == {0: "finished"}.get(code, "running" if code < 0 else "interrupted")
    process = start(words, tmp_path, tmp_path / "err.txt")
    assert process.wait(timeout=600) == 0, (tmp_path / "err.txt").read_text()
    assert status(folder)["status"] == "finished"
    assert_same(folder, whole)


# --- many processes ---------------------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def torchrun(words, cwd, err, *options, own_store=False):
    """Start an agent; ``own_store`` for agents that come back, see the core's README."""
    argv = [sys.executable, "-m", "torch.distributed.run", *map(str, options), "-m", "tnt_vit"]
    return start(words, cwd, err, argv, {**ENV, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": str(int(own_store))})


PAIR = [*TINY, "trainer.max_epochs=3", "scheduler=none", "trainer.strategy=ddp"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The run of two processes that Lightning has started."""
    folder = tmp_path_factory.mktemp("pair")
    process = start(["train", *PAIR, "trainer.devices=2", "hydra.run.dir=run"], folder, folder / "err.txt")
    assert process.wait(timeout=300) == 0, (folder / "err.txt").read_text()
    return folder / "run"


@POSIX
@pytest.mark.slow
def test_torchrun_starts_again_and_gives_the_same_run(pair, tmp_path):
    err, folder = tmp_path / "err.txt", tmp_path / "run"
    elastic = ["--standalone", "--nproc-per-node=2", "--max-restarts=2"]
    process = torchrun(["train", *PAIR, "trainer.devices=2", "hydra.run.dir=run"], tmp_path, err, *elastic)
    wait_until((folder / "checkpoints" / "last.ckpt").is_file, "torchrun never finished an epoch")
    os.kill(status(folder)["pid"], signal.SIGKILL)
    assert process.wait(timeout=300) == 0, err.read_text()
    assert "started again: resume=auto goes on with" in err.read_text()
    assert_same(folder, pair)


@POSIX
@pytest.mark.slow
def test_split_weights_give_the_losses_of_whole_ones(pair, run, tmp_path):
    err, folder = tmp_path / "err.txt", tmp_path / "run"
    words = ["train", *PAIR, "trainer.devices=2", "trainer.strategy=fsdp", "hydra.run.dir=run"]
    process = start([*words, "trainer.max_epochs=2"], tmp_path, err)
    assert process.wait(timeout=300) == 0, err.read_text()
    process = start([*words, "resume=run"], tmp_path, err)
    assert process.wait(timeout=300) == 0, err.read_text()
    losses = [[float(row["train_loss"]) for row in rows(each)] for each in (folder, pair)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    code, out, text = run("eval", "run=run", "trainer=cpu", "threads=1", "format=json")
    assert code == 0, text
    top1 = json.loads((folder / "metrics.json").read_text())["final"]["val_top1"]
    assert json.loads(out)["data"]["test_top1"] == pytest.approx(top1)
    one = ["train", *TINY, "trainer.max_epochs=4", "scheduler=none", "resume=run", "resume_anyway=true"]
    code, _, text = run(*one)
    assert code == 2
    assert "with trainer.strategy=fsdp a run goes on as it was only" in text


@POSIX
@pytest.mark.slow
def test_what_two_processes_wrote_one_goes_on_with_and_the_other_way(pair, run, tmp_path):
    shutil.copytree(pair, tmp_path / "run")
    code, out, text = run("eval", "run=run", "trainer=cpu", "threads=1", "format=json")
    assert code == 0, text
    top1 = json.loads((pair / "metrics.json").read_text())["final"]["val_top1"]
    assert json.loads(out)["data"]["test_top1"] == pytest.approx(top1)
    one = ["train", *TINY, "trainer.max_epochs=4", "scheduler=none", "resume=run", "trainer.strategy=auto"]
    code, _, text = run(*one)
    assert code == 2
    assert "trainer was {'devices': 2} in the interrupted run and is {'devices': 1} now" in text
    code, _, text = run(*one, "resume_anyway=true")
    assert code == 0, text
    two = ["train", *PAIR, "trainer.max_epochs=5", "trainer.devices=2", "resume=run", "resume_anyway=true"]
    process = start(two, tmp_path, tmp_path / "err.txt")
    assert process.wait(timeout=300) == 0, (tmp_path / "err.txt").read_text()
    assert [row["epoch"] for row in rows(tmp_path / "run")] == ["0", "1", "2", "3", "4"]


@POSIX
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a worker that its agent is gone")
def test_a_killed_agent_comes_back_and_the_training_goes_on(tmp_path):
    """Two agents stand for two machines; the second loses its agent by kill -9 and gets a new one."""
    port, folder = free_port(), tmp_path / "run"
    options = ["--nnodes=2", "--nproc-per-node=1", "--max-restarts=5", "--rdzv-backend=c10d", "--rdzv-id=job"]
    options.append(f"--rdzv-endpoint=localhost:{port}")
    words = ["train", *TINY, "trainer.max_epochs=40", "trainer.strategy=ddp", "trainer.num_nodes=2"]
    words += ["hydra.run.dir=run", "checkpoint_minutes=0.001"]

    def agent(node, attempt=0):
        host = f"--rdzv-conf=is_host={1 - node}"
        return torchrun(words, tmp_path, tmp_path / f"err{node}{attempt}.txt", *options, host, own_store=True)

    host, guest, said = agent(0), agent(1), tmp_path / "err00.txt"
    wait_until(lambda: len(rows(folder)) > 1, "two agents never finished an epoch")
    first = status(folder)["pid"]
    guest.kill()
    guest = agent(1, attempt=1)
    assert (host.wait(timeout=400), guest.wait(timeout=60)) == (0, 0), said.read_text()
    assert [row["epoch"] for row in rows(folder)] == [str(epoch) for epoch in range(40)]
    assert (status(folder)["status"], status(folder)["pid"] != first) == ("finished", True)
    assert any("resume=auto goes on with" in p.read_text() for p in tmp_path.glob("err*.txt"))


@POSIX
@pytest.mark.slow
def test_a_node_without_the_data_says_so_in_one_line(tmp_path):
    """Two agents stand for two machines, of which only the first has the folder."""
    from effkit.testing import write_image_folder

    root = write_image_folder(tmp_path / "pictures", count=4)
    port, words = free_port(), ["train", *TINY[:4], "data=imagefolder", "data.image_size=32", "trainer.strategy=ddp"]
    words += ["trainer.num_nodes=2", "hydra.run.dir=run", "trainer.max_epochs=1"]
    agents = [
        torchrun(
            [*words, f"data.root={root if node == 0 else tmp_path / 'missing'}"],
            tmp_path,
            tmp_path / f"err{node}.txt",
            *["--nnodes=2", f"--node-rank={node}", "--nproc-per-node=1", f"--master-port={port}"],
        )
        for node in (0, 1)
    ]
    codes = [agent.wait(timeout=200) for agent in agents]
    assert all(codes)
    said = [line for line in (tmp_path / "err1.txt").read_text().splitlines() if line.startswith("tnt-vit: error")]
    (line,) = said
    assert line.startswith(
        f"tnt-vit: error: rank 1 on {platform.node()}: data.root={str(tmp_path / 'missing')!r} is not"
    )
    assert status(tmp_path / "run")["status"] in ("failed", "interrupted")
