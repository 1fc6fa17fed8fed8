"""Jobs of a real SLURM: a sweep in which jobs end in every way, two nodes, and a job that is taken off its node."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from effkit.testing.training import rows

pytestmark = pytest.mark.slow
APPS = Path(__file__).parents[1] / "apps"


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def assert_same(folder, other):
    assert rows(folder) == rows(other)
    found, expected = weights(folder), weights(other)
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


def status(folder):
    return json.loads((folder / "status.json").read_text())


def until(happened, what, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.2)
    return found


def test_a_sweep_has_a_row_for_every_job(slurm, nodes, tmp_path):
    words = ["learn", "-m", "ends=null,value,killed", "hydra/launcher=slurm", "hydra.sweep.dir=sweep"]
    code, out, err = nodes(*words, env=slurm.environment)
    assert code == 2, err
    table = [line.split() for line in out[out.index("3 jobs") :].splitlines() if line.strip()]
    assert table[1] == ["job", "words", "status", "best", "val_top1", "folder"]
    assert [(row[1], row[2], row[-1]) for row in table[3:6]] == [
        ("ends=null", "finished", "sweep/0"),
        ("ends=value", "failed", "sweep/1"),
        ("ends=killed", "failed", "sweep/2"),
    ]
    assert float(table[3][3]) > 0
    assert re.search(r"^nodes: error: job 1 \(ends=value\): ends must be null, got 'value'$", err, re.M)
    assert re.search(r"^nodes: error: job 2 \(ends=killed\): job \d+_2 of SLURM ended with an error$", err, re.M)
    assert re.search(r"^    \S+_log.err: this job is about to die$", err, re.M)
    assert not re.search(r"sacct|Warning|Traceback", err)
    found = [status(tmp_path / "sweep" / str(job)) for job in range(3)]
    assert [job["status"] for job in found] == ["finished", "failed", "failed"]
    assert "of SLURM ended with an error" in found[2]["error"]


def test_two_nodes_compute_what_two_processes_of_one_do(slurm, nodes, tmp_path):
    common = ["learn", "trainer.strategy=ddp", "format=json"]
    words = ["-m", "trainer.num_nodes=2", "hydra/launcher=slurm", "hydra.sweep.dir=nodes"]
    code, out, err = nodes(*common, *words, env=slurm.environment)
    assert code == 0, err
    assert json.loads(out)["jobs"][0]["status"] == "finished"
    logs = [file.read_text() for file in (tmp_path / "nodes" / ".submitit").glob("*/*_log.out")]
    assert sorted(re.findall(r"node=(\d)\(2\)", "".join(logs))) == ["0", "1"]
    code, _, err = nodes(*common, "trainer.devices=2", "hydra.run.dir=processes", env={})
    assert code == 0, err
    assert_same(tmp_path / "nodes" / "0", tmp_path / "processes")


def test_a_job_taken_off_its_node_goes_on_and_loses_nothing(slurm, nodes, tmp_path):
    """Preempted in the middle of an epoch, it ends with the very weights of a run that was left alone."""
    program = [sys.executable, "-m", "nodes", "learn", "trainer.max_epochs=6"]
    words = ["-m", "pause=0.5", "hydra/launcher=slurm", "hydra.sweep.dir=taken"]
    variables = {**os.environ, "PYTHONPATH": str(APPS), "OMP_NUM_THREADS": "1", **slurm.environment}
    with subprocess.Popen([*program, *words], cwd=tmp_path, env=variables, stdout=-1, stderr=-1, text=True) as sweep:
        folder = tmp_path / "taken" / "0"
        until(lambda: len(rows(folder)) >= 2, "two epochs")
        job = slurm.ask("squeue", "--noheader", "--format=%A").split()[0]
        slurm.ask("scancel", "--signal=USR2", job)
        until(lambda: status(folder)["status"] == "interrupted", "the job's status")
        assert len(rows(folder)) < 6
        until(lambda: slurm.ask("squeue", "--noheader", "--states=PENDING", "--format=%A"), "the queue")
        slurm.ask("scontrol", "update", f"JobId={job}", "StartTime=now")  # SLURM would wait for two minutes
        out, err = sweep.communicate(timeout=240)
    assert sweep.returncode == 0, err
    assert "finished" in out
    assert status(folder)["resumed"]
    assert [row["epoch"] for row in rows(folder)] == ["0", "1", "2", "3", "4", "5"]
    code, _, err = nodes("learn", "trainer.max_epochs=6", "hydra.run.dir=alone", env={})
    assert code == 0, err
    assert_same(folder, tmp_path / "alone")


def test_what_slurm_does_not_take_is_one_line(slurm, nodes):
    words = ["learn", "-m", "hydra/launcher=slurm", "hydra.launcher.partition=nowhere"]
    code, out, err = nodes(*words, env=slurm.environment)
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "nodes: error: hydra/launcher=slurm: Batch job submission failed: Invalid partition name specified"
    ]


def test_a_controller_that_is_gone_is_one_line(slurm, nodes, tmp_path):
    config = (slurm.folder / "slurm.conf").read_text()
    (tmp_path / "slurm.conf").write_text(re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=1", config))
    started = time.monotonic()
    code, out, err = nodes("learn", "-m", "hydra/launcher=slurm", env={"SLURM_CONF": str(tmp_path / "slurm.conf")})
    assert time.monotonic() - started < 40  # ten seconds for SLURM, the rest for starting Python
    assert (code, out) == (2, "")
    assert re.fullmatch(r"nodes: error: hydra/launcher=slurm: no SLURM cluster answers within 10 s \(.+\)\n", err), err
