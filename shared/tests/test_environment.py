"""Who started the process: what a program that is merely installed must not change, and what nobody started."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
from torch import nn

from effkit.data import create_data
from effkit.errors import UserError
from effkit.lightning import build_trainer, evaluate, train
from effkit.lightning.environment import cluster_environment

CPU = {"accelerator": "cpu", "devices": 1, "precision": "32-true", "max_epochs": 1}


@pytest.fixture
def srun(monkeypatch, tmp_path):
    """A login node: the programs of SLURM are on the path, and nothing uses them."""
    program = tmp_path / "bin" / "srun"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    assert shutil.which("srun") == str(program)


@pytest.fixture
def parts():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))
    return network, create_data("digits", image_size=16, batch_size=32, limit=64)


def test_srun_on_the_path_changes_nothing(srun, parts, capfd, tmp_path):
    """Warnings are errors here."""
    train(
        {"trainer": {**CPU, "enable_progress_bar": False}, "optimizer": {"opt": "sgd", "lr": 0.1}},
        *parts,
        folder=tmp_path,
    )
    evaluate({"trainer": {**CPU, "enable_progress_bar": False}}, *parts, folder=tmp_path)
    assert build_trainer(CPU, tmp_path).world_size == 1
    assert "srun" not in "".join(capfd.readouterr())


def test_a_task_of_slurm_is_known_by_its_variables(srun, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert isinstance(cluster_environment(), SLURMEnvironment)
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")  # a shell inside an allocation: what it starts is no task
    assert isinstance(cluster_environment(), LightningEnvironment)


def test_several_nodes_need_somebody_who_starts_them(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"trainer.num_nodes=2, but this process was started alone: .*launcher=slurm"):
        build_trainer({**CPU, "num_nodes": 2, "strategy": "ddp"}, tmp_path)
    for name, value in {"NODE_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "12345"}.items():
        monkeypatch.setenv(name, value)
    assert build_trainer({**CPU, "num_nodes": 2, "strategy": "ddp"}, tmp_path).world_size == 2
