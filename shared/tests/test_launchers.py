"""What a first user trips over before a job runs: not installed, not there, not answering, values that do not fit."""

from __future__ import annotations

import os
import socket
import sys
import time

import pytest

from effkit.cluster import outside_a_job, squeue, state_in_words, watch_queue
from effkit.cluster import ray as on_ray
from effkit.cluster import slurm as on_slurm
from effkit.errors import UserError
from effkit.launchers.slurm import _parameters

SLURM = ["train", "-m", "seed=0,1", "hydra/launcher=slurm"]
RAY = ["train", "-m", "seed=0,1", "hydra/launcher=ray_cluster"]


@pytest.fixture
def line(demo, capfd):
    """The one line that a command ends with."""

    def run(words):
        assert demo(words) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.count("\n") == 1, err
        return err.removeprefix("demo: error: ").rstrip("\n")

    return run


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """Stand-ins for SLURM's programs; each is a line of shell."""

    def write(**lines):
        folder = tmp_path / "programs"
        folder.mkdir(exist_ok=True)
        for name in ("sbatch", "srun", "squeue", "sacct"):
            (folder / name).write_text(f"#!/bin/sh\n{lines.get(name, 'exit 0')}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    return write


# --- not installed, not there -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "module", "extra"), [(SLURM, "submitit", "launchers"), (RAY, "ray", "ray"), (RAY[:-1], "ray", "ray")]
)
def test_a_library_that_is_missing_is_named_with_its_extra(line, monkeypatch, words, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    words = words if "hydra/launcher" in words[-1] else [*words, "hydra/launcher=ray_local"]
    option = words[-1]
    assert line(words) == f"{option} needs {module}, which is not installed: pip install 'effkit[{extra}]'"


def test_slurm_that_is_not_installed(line, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert line(SLURM) == (
        "hydra/launcher=slurm: sbatch is not on the path: start this on a node of the cluster where SLURM is"
    )


def test_slurm_that_refuses_or_does_not_answer(line, programs, monkeypatch):
    programs(squeue="echo 'squeue: error: Unable to contact slurm controller' >&2; exit 1")
    monkeypatch.setattr(on_slurm, "PATIENCE", 1.0)
    assert line(SLURM) == (
        "hydra/launcher=slurm: no SLURM cluster answers within 1 s (Unable to contact slurm controller)"
    )
    programs(squeue="exec sleep 60")
    started = time.monotonic()
    assert line(SLURM) == "hydra/launcher=slurm: no SLURM cluster answers within 1 s (it does not answer)"
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("address", ["somewhere", "127.0.0.1", "host:port", "127.0.0.1:99999"])
def test_an_address_that_is_none(line, address):
    pytest.importorskip("ray")
    found = line([*RAY, f"hydra.launcher.address='{address}'"])
    assert found == f"hydra/launcher=ray_cluster: the address {address!r} must be HOST:PORT, ray://HOST:PORT or auto"


@pytest.mark.parametrize("listens", [True, False])
def test_an_address_at_which_there_is_no_cluster(line, monkeypatch, listens):
    """Ray would wait for minutes, and then end the process; even where something else listens."""
    pytest.importorskip("ray")
    monkeypatch.setattr(on_ray, "PATIENCE", 1.0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        if listens:
            other.listen()
        place = f"ray://127.0.0.1:{other.getsockname()[1]}"
        found = line([*RAY, f"hydra.launcher.address={place}"])
    assert found == f"hydra/launcher=ray_cluster: no Ray cluster answers at {place} within 1 s"


def test_unknown_launchers_name_those_there_are(line):
    found = line(["train", "-m", "hydra/launcher=slrum"])
    assert "did you mean 'slurm'?" in found
    assert all(name in found for name in ("ray_cluster", "ray_local", "slurm_gpu", "effkit[launchers]", "effkit[ray]"))


def test_a_command_without_a_folder_puts_its_jobs_where_nodes_see_them(line, programs, tmp_path):
    programs(sbatch=f'echo "$1" > {tmp_path}/script; echo "sbatch: error: not today" >&2; exit 1')
    assert line(["show-all", "-m", "images=[a],[b]", "hydra/launcher=slurm"]) == "hydra/launcher=slurm: not today"
    asked = (tmp_path / "script").read_text().strip()
    assert asked.startswith(f"{tmp_path}/.demo-")
    assert not list(tmp_path.glob(".demo-*"))


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("nodes=0", "hydra.launcher.nodes=0 must be a whole number of at least 1"),
        ("timeout_min=soon", "hydra.launcher.timeout_min='soon' must be a whole number of at least 1"),
        (
            "gpus_per_node=-1",
            "hydra.launcher.gpus_per_node=-1 must be a whole number of at least 0: give the number",
        ),
        ("mem_gb=0", "hydra.launcher.mem_gb=0 must be a number above 0"),
        ("partitoin=gpu", "did you mean 'hydra.launcher.partition'?"),
    ],
)
def test_keys_of_slurm_are_checked(line, programs, word, said):
    programs()
    assert said in line([*SLURM, f"hydra.launcher.{word}"])


def test_keys_reach_sbatch_under_its_names():
    given = {"partition": "gpu", "timeout_min": 5, "gpus_per_node": 0, "mem_gb": None, "setup": None}
    assert _parameters(given) == {"slurm_partition": "gpu", "timeout_min": 5}
    # Since SLURM 22.05 `srun` does not take over what the job asks for.
    asked = _parameters({"cpus_per_task": 4, "srun_args": ["--exact"]})
    assert asked == {"cpus_per_task": 4, "slurm_srun_args": ["--exact", "--cpus-per-task=4"]}


def test_tasks_follow_the_trainer(demo, capfd):
    words = ["+trainer.num_nodes=3", "+trainer.devices=4", "hydra/launcher=slurm_gpu"]
    assert demo(["train", "--cfg", "all", "--resolve", "-p", "hydra.launcher", *words]) == 0
    out, _ = capfd.readouterr()
    assert {"nodes: 3", "tasks_per_node: 4", "gpus_per_node: 4"} <= set(out.splitlines())


# --- SLURM's queue ----------------------------------------------------------------------------------------------------


def test_the_queue_is_read_by_task(programs):
    programs(squeue="echo '7_0 RUNNING'; echo '7_1 PENDING'")
    assert squeue({"7_0", "7_1", "7_2"}) == {"7_0": "RUNNING", "7_1": "PENDING"}
    programs(squeue="echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert squeue({"7"}) == {}
    programs(squeue="echo 'Unable to contact slurm controller' >&2; exit 1")
    assert squeue({"7"}) is None


def test_submitit_asks_the_queue_and_not_the_accounting(programs, tmp_path, monkeypatch, caplog):
    slurm = pytest.importorskip("submitit.slurm.slurm")
    monkeypatch.setattr(slurm.SlurmJob, "watcher", slurm.SlurmInfoWatcher())
    programs(squeue="echo '7 RUNNING'", sacct=f"touch {tmp_path}/asked")
    watcher = watch_queue()
    assert watch_queue() is watcher
    watcher.register_job("7")
    assert (watcher.get_state("7", mode="force"), watcher.is_done("7", mode="cache")) == ("RUNNING", False)
    programs(squeue="echo 'Unable to contact slurm controller' >&2; exit 1")
    watcher.update()
    assert not watcher.is_done("7", mode="cache")  # nobody answers: it goes on
    assert "SLURM does not answer" in caplog.text
    programs(squeue="exit 0")
    watcher.update()
    assert not watcher.is_done("7", mode="cache")  # a job may be missing while it is put back into the queue
    watcher.update()
    assert watcher.is_done("7", mode="cache")
    assert state_in_words(watcher.get_state("7", mode="cache")) == "left the queue without a result"
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("state", "done"),
    [("CANCELLED", True), ("TIMEOUT", True), ("OUT_OF_MEMORY", True), ("PREEMPTED", False), ("SUSPENDED", False)],
)
def test_states_that_are_the_end(programs, monkeypatch, state, done):
    slurm = pytest.importorskip("submitit.slurm.slurm")
    monkeypatch.setattr(slurm.SlurmJob, "watcher", slurm.SlurmInfoWatcher())
    programs(squeue=f"echo '9 {state}'")
    watcher = watch_queue()
    watcher.register_job("9")
    watcher.update()
    assert watcher.is_done("9", mode="cache") is done


def test_what_is_submitted_from_a_job_inherits_nothing_of_it(monkeypatch):
    for name, value in {"JOB_ID": "5", "NTASKS": "2", "CONF": "here"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    with outside_a_job():
        left = {name for name in os.environ if name.startswith(("SLURM", "SUBMITIT", "SBATCH"))}
        assert left == {"SLURM_CONF", "SBATCH_ACCOUNT"}
    assert os.environ["SLURM_JOB_ID"] == "5"
    assert os.environ["SUBMITIT_EXECUTOR"] == "slurm"


def test_a_refusal_names_what_asked():
    with pytest.raises(UserError, match=r"^cache build needs nosuchlibrary, which is not installed: .*\[ray\]"):
        on_ray.library("cache build", "nosuchlibrary", "ray")
