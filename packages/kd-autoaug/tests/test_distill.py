"""The commands train, distill and eval: what they write, the cache beside them, several processes, the experiments."""

import importlib.resources
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from effkit.errors import UserError
from effkit.testing import in_process, run_cli
from kd_autoaug.cache.cache import LogitCache
from kd_autoaug.cli import main
from kd_autoaug.commands.build import build_augment, build_loss
from kd_autoaug.commands.parts import build_everything

SMALL = ["data.limit=96", "data.batch_size=32", "trainer.max_epochs=2", "threads=1", "format=json"]
KD = [*SMALL, "guessing_teacher=true"]  # teachers of two epochs on 96 pictures


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return in_process(main, tmp_path, monkeypatch, capfd)


@pytest.fixture
def teacher(run, tmp_path) -> str:
    code, _, err = run("train", "experiment=digits_teacher", *SMALL, f"hydra.run.dir={tmp_path / 'teacher'}")
    assert code == 0, err
    return f"teacher.weights={tmp_path / 'teacher'}"


def weights(folder: Path) -> torch.Tensor:
    return torch.cat([v.flatten().double() for _, v in sorted(load_file(folder / "model.safetensors").items())])


def test_train_distill_and_eval(run, teacher, tmp_path):
    for name in ("metrics.csv", "metrics.json", "model.safetensors", "checkpoints/last.ckpt", ".hydra/config.yaml"):
        assert (tmp_path / "teacher" / name).is_file(), name
    code, out, err = run("distill", "experiment=digits_kd", *KD, teacher, f"hydra.run.dir={tmp_path / 'student'}")
    assert code == 0, err
    data = json.loads(out)["data"]
    assert {"train_loss", "train_ce", "train_kd", "label_outside_topk", "val_top1"} <= set(data["final"])
    assert data["params"] == 8254
    student = f"model.weights={tmp_path / 'student'}"
    code, out, err = run("eval", "experiment=digits_kd", student, "data.limit=96", "threads=1", "format=json")
    assert code == 0, err
    measured = json.loads(out)["data"]
    assert measured["images"] == 96
    assert measured["test_top1"] == pytest.approx(data["final"]["val_top1"])
    code, out, _ = run("eval", "data=digits_small", "data.limit=96", "threads=1")
    assert code == 0
    assert "random weights" in out


def test_mistakes_answer_in_one_line(run, teacher):
    code, _, err = run("train", "experiment=digits_ce", "loss=hinton", *SMALL)
    assert (code, err.count("\n")) == (2, 1)
    assert "`train` has none, use `kd-autoaug distill`" in err
    code, _, err = run("distill", "experiment=digits_kd", *KD)
    assert code == 2
    assert "teacher.weights is not set" in err
    code, _, err = run("distill", "experiment=digits_kd", *KD, teacher, "teacher_view=dirty")
    assert code == 2
    assert "teacher_view='dirty' is not known" in err
    code, _, err = run("distill", "experiment=digits_kd", *KD, teacher, "data=photos")
    assert code == 2
    assert "do not fit DigitsCNN" in err


def test_cached_training_is_online_training_bit_for_bit(run, teacher, tmp_path):
    words = ["distill", "experiment=digits_kd", *KD, "trainer.max_epochs=4", "view.num_views=2"]
    cache = [f"cache.path={tmp_path / 'cache'}", "cache.dtype=float32"]
    for name, more in (("online", []), ("fills", [*cache, "cache.mode=readwrite"]), ("reads", cache)):
        code, _, err = run(*words, *more, teacher, f"hydra.run.dir={tmp_path / name}")
        assert code == 0, err
    online = weights(tmp_path / "online")
    assert torch.equal(online, weights(tmp_path / "fills"))
    assert torch.equal(online, weights(tmp_path / "reads"))
    assert (tmp_path / "online" / "metrics.csv").read_text().split("\n")[0].count("train_kd") == 1
    kept = LogitCache.open(tmp_path / "cache")
    assert kept.complete
    assert (kept.num_samples, kept.num_views, kept.k) == (96, 2, 10)
    # A full cache needs no teacher, and wraps the views where its own do.
    code, _, err = run(*words, *cache, "view.num_views=null", f"hydra.run.dir={tmp_path / 'alone'}")
    assert code == 0, err
    assert torch.equal(online, weights(tmp_path / "alone"))


@pytest.mark.parametrize("mode", ["partial", "bucket", "hard"])
def test_a_cache_of_few_classes_serves_every_mode(run, teacher, tmp_path, mode):
    words = ["distill", "experiment=digits_kd", *KD, teacher, "view.num_views=1", f"loss.mode={mode}", "loss.k=3"]
    scores = {}
    for name, more in (("online", []), ("cached", [f"cache.path={tmp_path / 'cache'}", "cache.mode=readwrite"])):
        code, out, err = run(*words, *more)
        assert code == 0, err
        scores[name] = json.loads(out)["data"]["final"]
    assert scores["cached"]["train_loss"] == pytest.approx(scores["online"]["train_loss"], rel=2e-3)  # float16 records


def test_a_cache_of_other_views_is_refused(run, teacher, tmp_path):
    words = ["distill", "experiment=digits_kd", *KD, teacher, "view.num_views=2", f"cache.path={tmp_path / 'cache'}"]
    code, _, err = run(*words, "trainer.max_epochs=1", "cache.mode=readwrite")
    assert code == 0, err
    code, _, err = run(*words)
    assert code == 2
    assert "is not complete" in err
    for change, cause in (
        ("policy.m=1.0", "augment differs"),
        ("view.hflip=0.5", "augment differs"),
        ("seed=1", "data differs"),  # of digits_small the seed draws the split
        ("data.limit=95", "number of samples is 96, expected 95"),
        ("teacher.mean=0.4", "normalisation differs"),
        ("view.num_views=3", "view.num_views=3 is more than the 2 views"),
    ):
        code, _, err = run(*words, "cache.mode=readwrite", change)
        assert code == 2, change
        assert cause in err
    code, _, err = run(*words[:-2], f"cache.path={tmp_path / 'new'}", "cache.mode=readwrite")
    assert code == 2
    assert "view.num_views=null would need a cache without end" in err


def experiments() -> list[str]:
    root = Path(str(importlib.resources.files("kd_autoaug.configs"))) / "experiment"
    return sorted(file.relative_to(root).with_suffix("").as_posix() for file in root.rglob("*.yaml"))


@pytest.mark.parametrize("name", experiments())
def test_every_experiment_composes_and_its_parts_exist(name):
    distils = "kd" in name or "short" in name
    cfg = main.compose("distill" if distils else "train", [f"experiment={name}", "threads=1"])
    loss = build_loss(cfg)
    assert (loss.weight > 0) == distils
    augment = build_augment(cfg)
    assert augment is None or augment.fingerprint()
    assert (cfg.expected.top1 is None) == (cfg.expected.source is None)
    if not name.startswith("digits") and name != "cifar10_short":
        assert any(mark in line for line in cfg.expected.evidence for mark in ("[S]", "[R]", "[C]", "[?]"))
    missing = "teacher.weights" if distils and name.startswith("digits") else "data.root"
    if name in ("digits_ce", "digits_ls", "digits_teacher"):
        assert build_everything(cfg).module is not None  # nothing is missing
        return
    with pytest.raises(UserError, match=f"{missing} is not set"):
        build_everything(cfg)


@pytest.mark.slow
def test_two_processes_train_and_fill_one_cache(tmp_path, run, teacher):
    words = ["distill", "experiment=digits_kd", *KD, teacher, "view.num_views=1", "data.drop_last=false",
             "trainer.devices=2", "trainer.strategy=ddp", "cache.mode=readwrite", f"cache.path={tmp_path / 'cache'}",
             ]  # fmt: skip
    code, out, err = run_cli(["kd-autoaug", *words, f"hydra.run.dir={tmp_path / 'two'}"], cwd=tmp_path, timeout=240)
    assert code == 0, err
    assert json.loads(out)["data"]["epochs"] == 2
    assert LogitCache.open(tmp_path / "cache").complete
