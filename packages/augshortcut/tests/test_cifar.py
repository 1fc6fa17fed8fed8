"""Real pictures, where they are at hand: the CIFAR-10 experiment runs on picture files, with paths and without."""

from __future__ import annotations

import json

import pytest

from augshortcut.cli import main
from effkit.testing import in_process, unpack_cifar10

STEPS = ["data=cifar10_jpeg", "data.limit=64", "data.batch_size=32", "trainer=cpu", "trainer.max_epochs=1"]
STEPS += ["scheduler.warmup_epochs=0", "threads=1"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "added"), [("augmented", 12 * 2 * 2 * (4 * 192 + 192)), ("base", 0)])
def test_two_steps_of_the_experiment(name, added, tmp_path, monkeypatch, capfd):
    root = unpack_cifar10(tmp_path / "pictures", 8)
    run = in_process(main, tmp_path, monkeypatch, capfd)
    words = [f"experiment=cifar10/{name}", *STEPS, f"data.root={root}", "hydra.run.dir=out", "format=json"]
    code, out, err = run("train", *words)
    assert code == 0, err
    found = json.loads(out)["data"]
    assert found["path_params"] == added
    assert found["epochs"] == 1
    losses = (tmp_path / "out" / "metrics.csv").read_text().splitlines()
    assert len(losses) == 2  # a header and the epoch, two steps of 32 pictures
    code, out, err = run("eval", "run=out", f"data.root={root}", "data.limit=40", "format=json")
    assert code == 0, err
    assert json.loads(out)["data"]["images"] == 40
