"""Real pictures, where they are at hand: a published ResNet-56 teaches a ResNet-20 on CIFAR-10 by the commands."""

import json
from pathlib import Path

import pytest

from effkit.testing import in_process, shared_data, unpack_cifar10
from kd_autoaug.cli import main

PER_CLASS = 30  # pictures unpacked of each split


@pytest.fixture(scope="module")
def cifar(tmp_path_factory) -> Path:
    """The first pictures of each class and split."""
    return unpack_cifar10(tmp_path_factory.mktemp("cifar"), PER_CLASS)


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    command = in_process(main, tmp_path, monkeypatch, capfd)

    def call(*words: str) -> dict:
        code, out, err = command(*words, "device=cpu", "threads=1", "format=json")
        assert code == 0, err
        return json.loads(out)["data"]

    return call


@pytest.mark.slow
def test_a_published_teacher_recognises_the_pictures(cifar, run):
    weights = shared_data("resnet-cifar10", "resnet56-4bfd9763.th")
    found = run("eval", "model=resnet56_cifar", f"model.weights={weights}", "data=cifar10_jpeg", f"data.root={cifar}",
                "data.mean=[0.485,0.456,0.406]", "data.std=[0.229,0.224,0.225]")  # fmt: skip
    assert found["images"] == 10 * PER_CLASS
    assert found["params"] == 853_018
    assert found["test_top1"] > 75  # 84 % of a fifth of all test pictures


@pytest.mark.slow
def test_a_short_distillation_runs_and_its_cache_pays(cifar, run, tmp_path):
    teacher = shared_data("resnet-cifar10", "resnet56-4bfd9763.th")
    words = ["distill", "experiment=cifar10_short", f"data.root={cifar}", f"teacher.weights={teacher}",
             "data.batch_size=64", "data.drop_last=false", "trainer.max_epochs=4", "view.num_views=2",
             f"cache.path={tmp_path / 'cache'}", "cache.dtype=float32"]  # fmt: skip
    first = run(*words, "cache.mode=readwrite", f"hydra.run.dir={tmp_path / 'first'}")
    again = run(*words, f"hydra.run.dir={tmp_path / 'again'}")
    assert first["params"] == 269_722
    assert first["final"]["label_outside_topk"] == 0  # all classes count
    for key in ("train_loss", "train_kd", "val_loss"):
        assert first["final"][key] == again["final"][key], key  # answers from the disk are those of the teacher
    rows = (tmp_path / "first" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("train_loss")
    losses = [float(row.split(",")[column]) for row in rows[1:]]
    assert losses[-1] < losses[0]
    assert (tmp_path / "again" / "model.safetensors").is_file()
