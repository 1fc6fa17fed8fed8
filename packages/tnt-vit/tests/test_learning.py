"""Training learns: real digits, through the same calls as ``tnt-vit train experiment=digits``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from effkit.lightning.logging import read_rows
from tnt_vit.claim import Trained, train_experiment


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The digits recipe cut to a fraction of its epochs."""
    return train_experiment("digits", tmp_path_factory.mktemp("short"), "trainer.max_epochs=8", "threads=2")


def test_a_short_run_learns(short: Trained) -> None:
    assert len(short.curve) == 8
    assert short.accuracy >= 80
    assert short.accuracy == short.curve[-1]
    rows = read_rows(Path(short.metrics["folder"]) / "metrics.csv")
    losses = [float(row["train_loss"]) for row in rows]
    assert losses[-1] < 0.5 * losses[0]


def test_the_network_returned_is_the_trained_one(short: Trained) -> None:
    images, labels = short.data.split("test").tensors
    with torch.no_grad():
        right = (short.model.eval()(images).argmax(1) == labels).float().mean()
    assert 100 * float(right) == pytest.approx(short.accuracy, abs=1e-3)
