"""Rows, metrics and checkpoints hold what was measured, in whole epochs only."""

from __future__ import annotations

import json

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from effkit.data import create_data
from effkit.errors import UserError
from effkit.lightning import load_checkpoint, train
from effkit.lightning.logging import read_rows


class Stop(Callback):
    """Asks Lightning to stop after one batch of an epoch, as its own time limit does."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.current_epoch == self.epoch


def run(folder, *callbacks, resume=None, **trainer):
    hardware = {"accelerator": "cpu", "devices": 1, "precision": "32-true", "enable_progress_bar": False}
    cfg = {"trainer": {**hardware, **trainer}, "optimizer": {"opt": "sgd", "lr": 0.1}, "resume": resume}
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
    data = create_data("digits", image_size=8, batch_size=16, limit=64)
    return model, train(cfg, model, data, callbacks=callbacks, folder=folder)


def test_epochs_that_were_not_validated_repeat_no_figures(tmp_path):
    _, metrics = run(tmp_path, max_epochs=3, check_val_every_n_epoch=2)
    rows = read_rows(tmp_path / "metrics.csv")
    assert [row["val_top1"] != "" for row in rows] == [False, True, False]
    assert all(row["train_loss"] for row in rows)
    assert set(metrics["final"]) == {"lr", "train_loss", "train_top1"}
    assert metrics["best"]["epoch"] == 1
    run(tmp_path, max_epochs=4, check_val_every_n_epoch=2, resume=str(tmp_path))
    assert [row["val_top1"] != "" for row in read_rows(tmp_path / "metrics.csv")] == [False, True, False, True]


def test_a_time_limit_reports_the_epochs_done_and_goes_on_with_the_same_words(tmp_path, capfd):
    words = {"max_epochs": 5000, "max_time": "00:00:00:01"}
    _, first = run(tmp_path, **words)
    done = len(read_rows(tmp_path / "metrics.csv"))
    assert 0 < done < 5000
    assert first["epochs"] == json.loads((tmp_path / "metrics.json").read_text())["epochs"] == done
    assert f"stopped after {done} of 5000 epochs" in capfd.readouterr().err
    steps = [int(row["step"]) for row in read_rows(tmp_path / "metrics.csv")]
    assert steps == [4 * (epoch + 1) for epoch in range(done)]
    _, again = run(tmp_path, **words, resume=str(tmp_path))
    assert again["epochs"] == len(read_rows(tmp_path / "metrics.csv")) > done
    with pytest.raises(UserError, match=r"trainer: .*DD:HH:MM:SS"):
        run(tmp_path / "other", max_epochs=1, max_time="1 hour")


def test_a_part_of_an_epoch_is_not_kept_as_a_whole_one(tmp_path):
    model, metrics = run(tmp_path, Stop(2), max_epochs=5)
    assert metrics["epochs"] == len(read_rows(tmp_path / "metrics.csv")) == 2
    stored = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert stored["epoch"] == 1
    assert all(torch.equal(v, stored["state_dict"][f"model.{k}"]) for k, v in model.state_dict().items())
    _, metrics = run(tmp_path, max_epochs=5, resume=str(tmp_path))
    assert metrics["epochs"] == 5
    with pytest.raises(UserError, match="stopped before its first epoch had ended"):
        run(tmp_path / "none", Stop(0), max_epochs=5)
