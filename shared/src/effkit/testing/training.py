"""A small training that keeps state everywhere, ways to cut it short, and what "the same run" means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from effkit.data import create_data
from effkit.lightning import train
from effkit.lightning.logging import read_rows

__all__ = ["EPOCHS", "Halt", "TinyNet", "assert_same_run", "recipe", "rows", "run"]

EPOCHS = 4
TIMED = {"seconds", "images_per_second"}


class TinyNet(nn.Module):
    """Everything that keeps state or draws random numbers: batch norm and dropout."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        stem = nn.Conv2d(3, 8, 5, 2, 2), nn.BatchNorm2d(8), nn.ReLU()
        self.layers = nn.Sequential(*stem, nn.Dropout(0.2), nn.Flatten(), nn.Linear(512, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images ``(B, 3, 16, 16)``."""
        logits: Tensor = self.layers(x)
        return logits


class Halt(Callback):
    """Ends the process or raises, in the middle of an epoch.

    Args:
        how: A signal number to send to this process, or an exception to raise.
        epoch: In which epoch, counting from 0.
        batch: After which batch, counting from 0.
    """

    def __init__(self, how: int | BaseException, epoch: int, batch: int) -> None:
        self.how, self.epoch, self.batch = how, epoch, batch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Do it."""
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            if isinstance(self.how, int):
                os.kill(os.getpid(), self.how)
            else:
                raise self.how


def recipe(epochs: int = EPOCHS, **changes: Any) -> dict[str, Any]:
    """A configuration with everything that has a state: one-cycle schedule, mixing, smoothing, average of weights."""
    trainer = {"max_epochs": epochs, "accelerator": "cpu", "devices": 1, "precision": "32-true", "deterministic": True}
    cfg = {
        "trainer": {**trainer, "gradient_clip_val": 1.0},
        "optimizer": {"opt": "adamw", "lr": 2e-3, "weight_decay": 0.05},
        "scheduler": {"sched": "onecycle", "pct_start": 0.2},
        "mixup": {"mixup_alpha": 0.4, "cutmix_alpha": 1.0},
        "label_smoothing": 0.1,
        "ema": 0.9,
        "seed": 3,
        "resume": None,
    }
    return {**cfg, **changes}


def run(
    folder: str | Path, cfg: dict[str, Any], *, stop: Callback | None = None, data: Any = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Train from scratch, or go on if ``cfg`` says so; returns the network and the figures."""
    torch.set_num_threads(1)
    torch.manual_seed(cfg["resume"] is not None)  # a resumed process may start from any weights
    data = data or create_data("digits", image_size=16, batch_size=16, limit=72, augment="shift", seed=cfg["seed"])
    model = TinyNet(data.num_classes)
    metrics = train(cfg, model, data, folder=Path(folder), callbacks=[stop] if stop else [])
    return model, metrics


def rows(folder: str | Path) -> list[dict[str, str]]:
    """The rows of a run, without how long they took."""
    return [{k: v for k, v in row.items() if k not in TIMED} for row in read_rows(Path(folder) / "metrics.csv")]


def assert_same_run(model: nn.Module, folder: str | Path, other_model: nn.Module, other_folder: str | Path) -> None:
    """Assert that two runs have the same weights to the bit, the same rows and the same last checkpoint."""
    for key, value in model.state_dict().items():
        assert torch.equal(value, other_model.state_dict()[key]), key
    assert rows(folder) == rows(other_folder)
    a, b = (torch.load(Path(f) / "checkpoints" / "last.ckpt", weights_only=True) for f in (folder, other_folder))
    for part in ("state_dict", "current_model_state"):
        for key, value in a.get(part, {}).items():
            assert torch.equal(value, b[part][key]), (part, key)
    for key, state in a["optimizer_states"][0]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, b["optimizer_states"][0]["state"][key][name]), (key, name)
