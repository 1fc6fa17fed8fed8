"""Two processes share a run: every picture counts once, one of them writes, and the run can be resumed.

This file is also the program that the processes run: ``python test_ddp.py FOLDER EPOCHS [RESUME]``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from effkit.data import create_data
from effkit.lightning import evaluate, train
from effkit.lightning.logging import read_rows
from effkit.testing import run_cli


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))


def digits():
    # 71 pictures in batches of 16: the processes get 36 and 35, and the last batches are uneven too.
    return create_data("digits", image_size=16, batch_size=16, limit=71)


def main(folder: str, epochs: str, resume: str | None = None) -> None:
    torch.set_num_threads(1)
    hardware = {"accelerator": "cpu", "devices": 2, "strategy": "ddp", "precision": "32-true"}
    cfg = {
        "trainer": {**hardware, "max_epochs": int(epochs)},
        "optimizer": {"opt": "adamw", "lr": 3e-3},
        "scheduler": {"sched": "cosine"},
        "ema": 0.9,
        "resume": resume,
    }
    model, data = network(), digits()
    metrics = train(cfg, model, data, folder=Path(folder))
    images, labels = data.split("test").tensors
    with torch.no_grad():
        logits = model.eval()(data.preprocessing.normalize(images))
    found = evaluate(cfg, model, data, folder=Path(folder) / "eval")
    seen = {"loss": F.cross_entropy(logits, labels).item(), "train": metrics, "eval": found}
    (Path(folder) / f"rank{os.environ.get('LOCAL_RANK', 0)}.json").write_text(json.dumps(seen))


@pytest.mark.slow
def test_two_processes_train_measure_and_resume(tmp_path):
    folder = tmp_path / "run"
    for words in (["2"], ["3", folder]):
        code, _, err = run_cli([sys.executable, __file__, folder, *words], cwd=tmp_path, timeout=300)
        assert code == 0, err
        ranks = [json.loads((folder / f"rank{i}.json").read_text()) for i in range(2)]
        for rank in ranks:
            assert rank["eval"]["test_loss"] == pytest.approx(rank["loss"], rel=1e-5)
            assert rank["eval"]["test_top1"] == pytest.approx(rank["train"]["final"]["val_top1"])
            assert rank["eval"]["images"] == 71
            assert rank["train"]["final"] == ranks[0]["train"]["final"]
    assert [row["epoch"] for row in read_rows(folder / "metrics.csv")] == ["0", "1", "2"]
    assert [row["step"] for row in read_rows(folder / "metrics.csv")] == ["3", "6", "9"]
    assert sum("resuming" in line for line in err.splitlines()) == 1
    assert sum("epoch 3/3" in line for line in err.splitlines()) == 1


if __name__ == "__main__":
    main(*sys.argv[1:])
