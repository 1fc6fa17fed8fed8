"""The groups that every package's training shares: each option composes, and the code understands its keys."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Trainer
from omegaconf import OmegaConf
from torch import nn

import effkit.configs
from effkit.data import DATASETS, create_data
from effkit.lightning import LOGGERS, Classifier, train
from effkit.lightning.logging import read_rows
from effkit.lightning.optim import SCHEDULES, create_optimizer, create_scheduler

CONFIGS = Path(effkit.configs.__file__).parent
PRIMARY = """
defaults:
  - command
  - compute
  - precision
  - training
  - _self_
  - debug: null
hydra: {searchpath: ["file://%s"]}
"""


@pytest.fixture
def composed(tmp_path):
    """Compose the shared groups as a package's train.yaml does."""
    (tmp_path / "train.yaml").write_text(PRIMARY % CONFIGS)

    def make(*overrides):
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            return OmegaConf.to_container(compose("train", overrides=list(overrides)), resolve=True)

    return make


def options(group):
    return sorted(p.stem for p in (CONFIGS / group).glob("*.yaml"))


def network(classes=10):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16 * 16, classes)
    return nn.Sequential(*layers)


def test_groups_offer_what_the_code_knows(composed):
    assert set(options("data")) >= set(DATASETS)
    assert {composed(f"data={name}")["data"]["name"] for name in options("data")} == set(
        DATASETS
    )  # cifar10_jpeg: one more
    assert options("logger") == sorted(LOGGERS)
    assert set(options("scheduler")) <= set(SCHEDULES)
    assert {"auto", "cpu", "gpu", "ddp", "debug"} == set(options("trainer"))


@pytest.mark.parametrize("name", options("trainer"))
def test_trainer_keys_are_lightnings_arguments(composed, name):
    trainer = composed(f"trainer={name}")["trainer"]
    assert set(trainer) <= set(inspect.signature(Trainer.__init__).parameters)
    assert trainer.keys() >= composed("trainer=auto")["trainer"].keys()


@pytest.mark.parametrize("optimizer", options("optimizer"))
@pytest.mark.parametrize("scheduler", options("scheduler"))
def test_optimizers_and_schedules_are_built_together(composed, optimizer, scheduler):
    cfg = composed(f"optimizer={optimizer}", f"scheduler={scheduler}")
    built = create_optimizer(network(), cfg["optimizer"])
    assert built.param_groups[0]["lr"] == cfg["optimizer"]["lr"]
    schedule = create_scheduler(built, cfg["scheduler"], epochs=5, updates_per_epoch=3)
    assert (schedule is None) == (scheduler == "none")


@pytest.mark.parametrize("debug", options("debug"))
@pytest.mark.parametrize("data", options("data"))
def test_debug_presets_fit_every_data_set(composed, data, debug):
    before, after = composed(f"data={data}")["data"], composed(f"data={data}", f"debug={debug}")["data"]
    assert set(after) == set(before), "a preset must not bring keys that the data set does not take"


def test_the_seed_of_the_run_is_the_seed_of_the_data(composed):
    assert composed("seed=7")["data"]["seed"] == 7
    alone = OmegaConf.create({"data": OmegaConf.load(CONFIGS / "data" / "digits.yaml")})
    assert OmegaConf.to_container(alone, resolve=True)["data"]["seed"] == 0


def test_the_defaults_mix_and_average_nothing(composed):
    cfg = composed()
    module = Classifier(network(), 10, optimizer=cfg["optimizer"], mixup=cfg["mixup"], ema=cfg["ema"])
    assert module.mixup is None
    assert module.configure_callbacks() == []
    assert composed("mixup.mixup_alpha=0.8")["mixup"]["mixup_alpha"] == 0.8


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(composed, folder, *overrides):
    cfg = composed(*overrides)
    return train(cfg, network(), create_data(**cfg["data"]), folder=folder)


def test_debug_default_is_over_at_once(composed, tmp_path):
    metrics = run(composed, tmp_path / "run", "debug=default")
    assert metrics["epochs"] == 2
    steps = [row["step"] for row in read_rows(tmp_path / "run" / "metrics.csv")]
    assert steps == ["4", "8"]
    assert metrics["device"] == "cpu"


def test_debug_overfit_learns_64_pictures_by_heart(composed, tmp_path):
    metrics = run(
        composed, tmp_path / "run", "debug=overfit", "trainer=cpu", "trainer.max_epochs=25", "optimizer.lr=3.0e-3"
    )
    assert metrics["final"]["train_top1"] == 100.0
