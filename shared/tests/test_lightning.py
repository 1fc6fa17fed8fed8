"""The Lightning part: losses and metrics by hand, schedules by formula, one short training, and clear refusals."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import nn

from effkit.data import create_data
from effkit.data.sampling import IGNORE
from effkit.errors import UserError
from effkit.lightning import (
    Classifier,
    CsvLogger,
    build_trainer,
    create_loggers,
    evaluate,
    evaluation_report,
    network_state,
    train,
)
from effkit.lightning.logging import read_rows
from effkit.lightning.metrics import PercentCorrect
from effkit.lightning.optim import create_optimizer, create_scheduler
from effkit.testing import write_image_folder

CPU = {"accelerator": "cpu", "devices": 1, "precision": "32-true", "deterministic": True}


class TinyNet(nn.Module):
    """A convolutional network that learns the digits in seconds."""

    def __init__(self, num_classes: int = 10, size: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 5, 2, 2), nn.BatchNorm2d(12), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(12, 24, 3, 2, 1), nn.ReLU(), nn.Dropout(0.1), nn.Flatten())
        self.position = nn.Parameter(torch.zeros(1, 12, 1, 1))
        self.head = nn.Linear(24 * (size // 4) ** 2, num_classes)

    def no_weight_decay(self):
        return {"position"}

    def forward(self, x):
        return self.head(self.body(self.stem(x) + self.position))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def config(**changes):
    cfg = {
        "trainer": {**CPU, "max_epochs": 1},
        "optimizer": {"opt": "adamw", "lr": 3e-3, "weight_decay": 0.05},
        "scheduler": {"sched": "onecycle", "pct_start": 0.2},
        "logger": {"name": "csv"},
        "seed": 0,
    }
    for key, value in changes.items():
        cfg[key] = {**cfg.get(key, {}), **value} if key == "trainer" else value
    return cfg


def small_digits(**kwargs):
    return create_data("digits", **{"image_size": 16, "batch_size": 32, "limit": 64, **kwargs})


# --- metrics and losses -----------------------------------------------------------------------------------------------


def test_accuracy_is_a_percentage_and_ignores_fillers():
    logits = torch.tensor(
        [[3.0, 2, 1, 0, 0, 0, 0], [0, 3, 2, 1, 0, 0, 0], [0, 0, 0, 0, 1, 2, 3], [9, 0, 0, 0, 0, 0, 0]]
    )
    labels = torch.tensor([0, 2, 3, IGNORE])
    top1, top5 = PercentCorrect(7), PercentCorrect(7, top_k=5)
    top1.update(logits, labels)
    top5.update(logits, labels)
    assert top1.compute().item() == pytest.approx(100 / 3)
    assert 200 / 3 <= top5.compute().item() <= 100.001
    top1.reset()
    top1.update(logits[3:], labels[3:])
    top1.update(logits[:1], labels[:1])
    assert top1.compute().item() == 100


def test_validation_loss_is_the_mean_over_pictures(tmp_path):
    data = small_digits(batch_size=48)  # 64 pictures: a batch of 48 and one of 16
    model = TinyNet().eval()
    found = evaluate(config(), model, data, folder=tmp_path)
    images, labels = data.split("test").tensors
    with torch.no_grad():
        logits = model(data.preprocessing.normalize(images))
    assert found["test_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert found["test_top1"] == pytest.approx(100 * (logits.argmax(1) == labels).float().mean().item(), rel=1e-5)
    assert found["images"] == 64
    assert found["device"] == "cpu"
    assert json.loads((tmp_path / "metrics.json").read_text()) == found
    report = evaluation_report(
        "some eval", config(), model, data, name="tiny", printed=81.5, beside=[["published", 80]], lines=["so it is"],
        folder=tmp_path,
    )  # fmt: skip
    (table,) = report.tables
    assert table.title == f"tiny on {data.name}, test"
    assert table.rows[-2:] == [["paper's top1", 81.5], ["published", 80]]
    assert {row[0]: row[1] for row in table.rows}["test_loss"] == report.data["test_loss"] == found["test_loss"]
    assert report.lines == ["so it is"]


def test_fillers_do_not_count():
    images, labels = torch.randn(6, 3, 16, 16), torch.tensor([1, 2, 3, 4, 5, 6])
    module = Classifier(TinyNet(), 10).eval()
    module.log = lambda *args, **kwargs: None
    with torch.no_grad():
        module.validation_step((images, labels), 0)
        expected = [m.compute() for m in (module.val_loss, module.val_top1, module.val_top5)]
        for metric in (module.val_loss, module.val_top1, module.val_top5):
            metric.reset()
        module.validation_step((images[:4], labels[:4]), 0)
        padded = torch.cat([labels[4:], torch.tensor([IGNORE, IGNORE])]), torch.cat([images[4:], images[:2]])
        module.validation_step(padded[::-1], 1)
        module.validation_step((images[:1], torch.tensor([IGNORE])), 2)
        found = [m.compute() for m in (module.val_loss, module.val_top1, module.val_top5)]
    torch.testing.assert_close(found, expected)


def test_training_loss_weighs_uneven_batches():
    module = Classifier(TinyNet(), 10).eval()
    module.log = lambda *args, **kwargs: None
    images, labels = torch.randn(5, 3, 16, 16), torch.arange(5)
    for part in (slice(0, 4), slice(4, 5)):
        module.training_step((images[part], labels[part]), 0)
    expected = F.cross_entropy(module(images), labels)
    assert module.train_loss.compute().item() == pytest.approx(expected.item(), rel=1e-6)


def test_soft_targets_are_taken_as_they_are():
    module = Classifier(TinyNet(), 10, optimizer={"opt": "sgd", "lr": 0.1})
    module.log = lambda *args, **kwargs: None
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([1, 2, 3, 4])
    module.eval()
    hard = module.training_step((images, labels), 0)
    soft = module.training_step((images, F.one_hot(labels, 10).float()), 0)
    assert soft.item() == pytest.approx(hard.item(), rel=1e-6)


@pytest.mark.parametrize("batch", [1, 5, 6])
def test_mixing_keeps_odd_batches_whole(batch):
    module = Classifier(TinyNet(), 10, mixup={"mixup_alpha": 0.8, "cutmix_alpha": 1.0}, label_smoothing=0.1)
    images, labels = torch.randn(batch, 3, 16, 16), torch.arange(batch)
    before = images.clone()
    mixed, targets = module._mix(images.clone(), labels)
    assert torch.equal(mixed, before) == (batch == 1)
    assert mixed.shape == before.shape
    assert targets.shape == (batch, 10)
    assert torch.allclose(targets.sum(1), torch.ones(batch))
    if batch % 2:
        assert torch.equal(mixed[-1], before[-1])
        assert targets[-1, batch - 1].item() == pytest.approx(0.91)


def test_label_smoothing_acts_on_training_only():
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([1, 2, 3, 4])
    model = TinyNet().eval()
    losses = {}
    for smoothing in (0.0, 0.3):
        module = Classifier(model, 10, label_smoothing=smoothing).eval()
        module.log = lambda *args, **kwargs: None
        module.validation_step((images, labels), 0)
        losses[smoothing] = module.training_step((images, labels), 0).item(), module.val_loss.compute().item()
    assert losses[0.0][0] != losses[0.3][0]
    assert losses[0.0][1] == losses[0.3][1]


# --- optimizer and schedule -------------------------------------------------------------------------------------------


def test_biases_norms_and_named_parameters_are_not_decayed():
    model = TinyNet()
    optimizer = create_optimizer(model, {"opt": "adamw", "lr": 1e-3, "weight_decay": 0.05, "betas": [0.9, 0.95]})
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        expected = 0.0 if parameter.ndim <= 1 or name == "position" else 0.05
        assert decays[id(parameter)] == expected, name
    assert len(decays) == len(list(model.parameters()))
    assert {tuple(g["betas"]) for g in optimizer.param_groups} == {(0.9, 0.95)}


def rates(options, epochs, updates_per_epoch, lr=1.0):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
    schedule = create_scheduler(optimizer, options, epochs=epochs, updates_per_epoch=updates_per_epoch)
    found = []
    for _ in range(epochs * updates_per_epoch):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_cosine_has_warmup_and_cooldown_inside_the_run():
    options = {"sched": "cosine", "min_lr": 0.1, "warmup_lr": 0.01, "warmup_epochs": 2, "cooldown_epochs": 3}
    found = rates(options, epochs=10, updates_per_epoch=4)
    assert found[0] == 0.01
    assert found[4] == pytest.approx(0.01 + (1 - 0.01) / 8 * 4)
    for t in range(8, 28):  # 7 epochs of schedule, the first two of them replaced by the warm-up
        assert found[t] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * t / 28)) / 2)
    assert found[28:] == [0.1] * 12


def test_one_cycle_rises_then_falls():
    options = {"sched": "onecycle", "pct_start": 0.2, "div_factor": 25.0, "final_div_factor": 1e4}
    found = rates(options, epochs=5, updates_per_epoch=20, lr=2e-3)
    assert found[0] == pytest.approx(2e-3 / 25)
    assert found.index(max(found)) == 19
    assert max(found) == pytest.approx(2e-3)
    assert found[-1] == pytest.approx(2e-3 / 25 / 1e4)


@pytest.mark.parametrize("options", [None, {"sched": "none"}, {"sched": "none", "pct_start": 0.2}])
def test_no_schedule(options):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    assert create_scheduler(optimizer, options, epochs=1, updates_per_epoch=1) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sched": "cosin"}, r"scheduler.sched='cosin' is not known.*did you mean 'cosine'"),
        ({"sched": "cosine", "warmup": 3}, r"scheduler=cosine argument='warmup' is not known"),
        ({"sched": "onecycle", "warmup_epochs": 3}, r"scheduler=onecycle argument='warmup_epochs' is not known"),
        ({"sched": "onecycle", "pct_start": 3.0}, r"scheduler=onecycle: .*pct_start"),
        ({"sched": "onecycle", "pct_start": "a"}, r"scheduler=onecycle: "),
        ({"sched": "onecycle", "div_factor": 0}, r"scheduler.div_factor=0 must be a number above 0"),
        ({"sched": "onecycle", "max_momentum": 3}, r"scheduler.max_momentum=3 must be a number in \[0, 1\)"),
        ({"sched": "cosine", "warmup_epochs": 4, "cooldown_epochs": 6}, r"leave some of trainer.max_epochs=10 between"),
        ({"sched": "cosine", "warmup_epochs": "3"}, r"scheduler.warmup_epochs='3' must be a number of at least 0"),
        ({"sched": "cosine", "min_lr": -1.0}, r"scheduler.min_lr=-1.0 must be a number of at least 0"),
        ({"sched": "cosine", "noise": [0.1, "a"]}, r"scheduler.sched=cosine: '<' not supported"),
        ({"sched": "step", "decay_epochs": 0}, r"scheduler.decay_epochs=0 must be a number above 0"),
        ({"sched": "multistep", "decay_milestones": "a"}, r"scheduler.sched=multistep: '<' not supported"),
    ],
)
def test_bad_schedules_are_explained(options, message):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    with pytest.raises(UserError, match=message):
        create_scheduler(optimizer, options, epochs=10, updates_per_epoch=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opt": "adamv", "lr": 1e-3}, r"optimizer.opt='adamv' is not known.*did you mean"),
        ({"opt": "adamw"}, r"optimizer.lr=None must be a number above 0"),
        ({"opt": "adamw", "lr": -1.0}, r"optimizer.lr=-1.0 must be a number above 0"),
        ({"opt": "adamw", "lr": "0.1"}, r"optimizer.lr='0.1' must be a number above 0"),
        ({"opt": "adamw", "lr": math.nan}, r"optimizer.lr=nan must be a number above 0"),
        ({"opt": "sgd", "lr": 1.0, "beta": 3}, r"optimizer.opt=sgd: .*beta"),
        ({"opt": "sgd", "lr": 1.0, "momentum": 2}, r"optimizer.momentum=2 must be a number in \[0, 1\)"),
        ({"opt": "adamw", "lr": 1.0, "weight_decay": -1}, r"optimizer.weight_decay=-1 must be a number of at least 0"),
        ({"opt": "adamw", "lr": 1.0, "eps": "tiny"}, r"optimizer.eps='tiny' must be a number of at least 0"),
        ({"opt": "adamw", "lr": 1.0, "betas": [0.9]}, r"optimizer.betas=\[0.9\] must be 2 numbers in \[0, 1\)"),
        ({"opt": "adamw", "lr": 1.0, "betas": 0.9}, r"optimizer.betas=0.9 must be 2 numbers"),
        ({"opt": "adamw", "lr": 1.0, "betas": [0.9, 1.5]}, r"optimizer.betas=\[0.9, 1.5\] must be 2 numbers"),
        ({"opt": "adamw", "lr": 1.0, "betas": [0.9, "b"]}, r"optimizer.betas=\[0.9, 'b'\] must be 2 numbers"),
        ({"opt": "adan", "lr": 1.0, "betas": [0.9, 0.9]}, r"optimizer.betas=\[0.9, 0.9\] must be 3 numbers"),
    ],
)
def test_bad_optimizers_are_explained(options, message):
    with pytest.raises(UserError, match=message):
        create_optimizer(TinyNet(), options)
    with pytest.raises(UserError, match=message):  # before data, trainer or run folder
        Classifier(TinyNet(), 10, optimizer=options)


def test_trying_an_optimizer_draws_nothing_and_keeps_right_arguments():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Classifier(nn.Identity(), 10, optimizer={"opt": "adamw", "lr": 0.1})
    assert torch.equal(torch.get_rng_state(), before)
    optimizer = create_optimizer(TinyNet(), {"opt": "adan", "lr": 0.1, "betas": [0.9, 0.8, 0.7]})
    assert list(optimizer.defaults["betas"]) == [0.9, 0.8, 0.7]


def test_trying_a_schedule_leaves_the_learning_rate():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    create_scheduler(optimizer, {"sched": "cosine", "min_lr": 0.25}, epochs=10, updates_per_epoch=5)
    assert optimizer.param_groups[0]["lr"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing=1.0 must be in \[0, 1\)"),
        ({"label_smoothing": "no"}, r"label_smoothing='no' must be in \[0, 1\)"),
        ({"ema": 1.0}, r"ema=1.0 must be a decay in \(0, 1\)"),
        ({"ema": "off"}, r"ema='off' must be a decay in \(0, 1\)"),
        ({"mixup": {"mixup_alpha": "a"}}, r"mixup.mixup_alpha='a' must be a number of at least 0"),
        ({"mixup": {"mixup_alpha": 1.0, "prob": 2}}, r"mixup.prob=2 must be a number in \[0, 1\]"),
        ({"mixup": {"alpha": 0.8}}, r"mixup argument='alpha' is not known"),
        ({"mixup": {"mixup_alpha": 0.8, "mode": "all"}}, r"mixup.mode='all' is not known"),
    ],
)
def test_bad_classifier_arguments_are_explained(arguments, message):
    with pytest.raises(UserError, match=message):
        Classifier(TinyNet(), 10, **arguments)


# --- a whole run ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """One real training on the digits, looked at by several tests."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("digits") / "run"
    model = TinyNet()
    cfg = config(trainer={"max_epochs": 6, "gradient_clip_val": 1.0}, ema=0.95, label_smoothing=0.1)
    return folder, model, cfg, train(cfg, model, small_digits(limit=None), folder=folder)


def test_training_learns_the_digits(digits_run):
    folder, model, _, metrics = digits_run
    assert metrics["final"]["val_top1"] >= 93.0
    assert metrics["best"]["val_top1"] >= metrics["final"]["val_top1"]
    assert metrics["epochs"] == 6
    assert metrics["params"] == sum(p.numel() for p in model.parameters())
    assert metrics["device"] == "cpu"
    assert 0 < metrics["seconds"] < 60
    assert metrics["images_per_second"] > 100
    stored = json.loads((folder / "metrics.json").read_text())
    assert stored == {k: v for k, v in metrics.items() if k != "folder"}
    assert sorted(p.name for p in folder.iterdir()) == [
        "checkpoints",
        "metrics.csv",
        "metrics.json",
        "preprocessing.json",
    ]
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_metrics_file_has_one_row_per_epoch(digits_run):
    folder, _, _, metrics = digits_run
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == [str(i) for i in range(6)]
    assert [row["step"] for row in rows] == [str(45 * (i + 1)) for i in range(6)]
    scores = ["train_loss", "train_top1", "val_loss", "val_top1", "val_top5"]
    assert list(rows[0]) == ["epoch", "step", "lr", *scores, "seconds", "images_per_second"]
    assert float(rows[-1]["val_top1"]) == metrics["final"]["val_top1"]
    assert float(rows[0]["train_loss"]) > float(rows[-1]["train_loss"])


def test_final_weights_are_the_averaged_ones_and_evaluate_alike(digits_run, tmp_path):
    folder, model, cfg, metrics = digits_run
    state = network_state(folder, "last")
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in state.items())
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    current = checkpoint["current_model_state"]
    assert not torch.equal(current["model.head.weight"], state["head.weight"])
    assert checkpoint["config"]["optimizer"]["lr"] == 3e-3
    fresh = TinyNet()
    fresh.load_state_dict(network_state(folder, "best"))
    found = evaluate(cfg, fresh, small_digits(limit=None), folder=tmp_path)
    assert found["test_top1"] == pytest.approx(metrics["best"]["val_top1"], abs=1e-4)


def test_integer_buffers_are_copied_into_the_average(digits_run):
    folder, *_ = digits_run
    assert network_state(folder, "last")["stem.1.num_batches_tracked"] == 6 * 45


def test_a_run_is_quiet_but_for_a_line_per_epoch(tmp_path, capfd):
    deterministic = torch.are_deterministic_algorithms_enabled()
    train(config(trainer={"max_epochs": 2}), TinyNet(), small_digits(), folder=tmp_path)
    out, err = capfd.readouterr()
    assert out == ""
    assert [line.split("  ")[0] for line in err.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    assert "val_top1" in err
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    train(config(trainer={"enable_progress_bar": False}), TinyNet(), small_digits(), folder=tmp_path)
    assert capfd.readouterr() == ("", "")


def test_pictures_with_the_full_recipe(tmp_path):
    root = write_image_folder(tmp_path / "pictures", classes=("a", "b", "c"), count=8)
    data = create_data(
        "imagefolder", root=str(root), image_size=16, batch_size=8, num_workers=0, augment="deit", repeats=3, mean=0.5
    )
    cfg = config(
        trainer={"max_epochs": 2, "accumulate_grad_batches": 2},
        optimizer={"opt": "sgd", "lr": 0.05, "momentum": 0.9},
        scheduler={"sched": "cosine", "warmup_epochs": 1, "warmup_lr": 1e-4},
        mixup={"mixup_alpha": 0.8, "cutmix_alpha": 1.0},
        label_smoothing=0.1,
    )
    metrics = train(cfg, TinyNet(num_classes=3), data, folder=tmp_path / "run")
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    assert [row["step"] for row in rows] == ["2", "4"]  # 3 batches, 2 accumulated
    assert "train_top1" not in rows[0]
    assert "val_top5" not in rows[0]
    assert math.isfinite(metrics["final"]["train_loss"])


def test_no_validation_is_possible(tmp_path):
    metrics = train(config(trainer={"limit_val_batches": 0}), TinyNet(), small_digits(), folder=tmp_path)
    assert metrics["best"] is None
    assert "val_top1" not in metrics["final"]
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()


class Poison(Callback):
    """Makes the weights NaN before the second epoch."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            nn.init.constant_(pl_module.model.head.bias, math.nan)


def test_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"train_loss became nan in epoch 2: lower optimizer.lr"):
        train(config(trainer={"max_epochs": 3}), TinyNet(), small_digits(), callbacks=[Poison()], folder=tmp_path)
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 0
    assert all(v.isfinite().all() for v in last["state_dict"].values())


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"max_epochs": 0}, r"trainer.max_epochs=0 must be a whole number of at least 1"),
        ({"max_epochs": None}, r"trainer.max_epochs=None must be"),
        ({"max_epoch": 3}, r"trainer argument='max_epoch' is not known.*'max_epochs'"),
        ({"overfit_batches": 1}, r"trainer argument='overfit_batches' is not known"),
        ({"accelerator": "abacus"}, r"trainer: .*abacus"),
        ({"precision": "8-true"}, r"trainer.precision='8-true' must be one of .*16-mixed"),
        ({"devices": 0}, r"trainer: .*0"),
    ],
)
def test_bad_trainer_arguments_are_explained(tmp_path, trainer, message):
    with pytest.raises(UserError, match=message) as caught:
        train(config(trainer=trainer), TinyNet(), small_digits(), folder=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "precision", "expected"),
    [
        ({}, "auto", "32-true"),
        ({}, "bf16", "bf16-mixed"),
        ({"precision": "64-true"}, "auto", "64-true"),
        ({"precision": "bf16-true"}, "bf16", "bf16-true"),
        ({"accelerator": "cpu", "devices": 2, "strategy": "ddp"}, "fp32", "32-true"),
    ],
)
def test_auto_means_what_the_command_says(tmp_path, options, precision, expected):
    trainer = build_trainer({"max_epochs": 1, **options}, tmp_path, device="cpu", precision=precision)
    assert trainer.precision == expected
    assert trainer.strategy.root_device.type == "cpu"
    assert trainer.num_devices == options.get("devices", 1)
    with pytest.raises(UserError, match=r"device='tpu' is not known"):
        build_trainer({"max_epochs": 1}, tmp_path, device="tpu")


def test_what_the_hardware_cannot_do_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"device=cpu and trainer.accelerator=gpu contradict each other"):
        build_trainer({"max_epochs": 1, "accelerator": "gpu"}, tmp_path, device="cpu")
    for said, precision in (("32-true", "bf16"), ("64-true", "fp32"), ("bf16-mixed", "fp32"), ("bf16-mixed", "fp16")):
        with pytest.raises(UserError, match=rf"precision={precision} and trainer.precision={said} contradict each"):
            build_trainer({"max_epochs": 1, "precision": said}, tmp_path, device="cpu", precision=precision)
    with pytest.raises(UserError, match="Lightning has no fp16 on the CPU, use bf16 or fp32"):
        build_trainer({"max_epochs": 1}, tmp_path, device="cpu", precision="fp16")


@pytest.mark.parametrize("name", ["simple", "advanced"])
def test_a_profiler_that_was_asked_for_shows_its_table(tmp_path, caplog, name):
    with caplog.at_level("INFO"):
        trainer = {**config()["trainer"], "max_epochs": 1, "profiler": name}
        train(config(trainer=trainer), TinyNet(), small_digits(), folder=tmp_path)
    tables = [r.getMessage() for r in caplog.records if r.name.startswith("lightning.pytorch.profilers")]
    assert any("run_training_epoch" in text for text in tables), caplog.text
    assert "GPU available" not in caplog.text  # the advertisements stay away


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU where there is none")
def test_a_missing_gpu_is_explained(tmp_path):
    with pytest.raises(UserError, match=r"trainer: .*gpu"):
        build_trainer({"max_epochs": 1, "accelerator": "gpu", "precision": "bf16-mixed"}, tmp_path)


def test_a_head_of_another_size_is_explained(tmp_path):
    with pytest.raises(UserError, match=r"logits of shape \(32, 7\), but the data has 10 classes"):
        train(config(), TinyNet(num_classes=7), small_digits(), folder=tmp_path)


def test_training_needs_an_optimizer(tmp_path):
    with pytest.raises(UserError, match=r"optimizer is not set"):
        train(config(optimizer=None), TinyNet(), small_digits(), folder=tmp_path)


# --- distributed ------------------------------------------------------------------------------------------------------


def test_devices_without_a_task_of_slurm_are_refused(monkeypatch, tmp_path):
    for name, value in {"NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_ID": "12345"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("MASTER_PORT", "12345")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    options = {"max_epochs": 1, "accelerator": "cpu", "precision": "32-true"}
    with pytest.raises(UserError, match=r"trainer.devices=2 .* 2 processes, but SLURM_NTASKS=1: .*ntasks-per-node=2"):
        build_trainer({**options, "devices": 2, "strategy": "ddp"}, tmp_path)
    assert build_trainer({**options, "devices": 1}, tmp_path).world_size == 1


# --- loggers ----------------------------------------------------------------------------------------------------------


def test_csv_logger_appends_merges_and_reads_back_equal(tmp_path):
    path = tmp_path / "metrics.csv"
    logger = CsvLogger(path)
    logger.log_metrics({"epoch": 0, "loss": 0.1 + 0.2}, step=0)
    inode = path.stat().st_ino
    logger.log_metrics({"epoch": 1, "loss": 1e-300}, step=1)
    assert path.stat().st_ino == inode  # appended, not rewritten
    logger.log_metrics({"epoch": 1, "late": torch.tensor(2.5)}, step=1)
    rows = read_rows(path)
    assert [r["epoch"] for r in rows] == ["0", "1"]
    assert float(rows[0]["loss"]) == 0.1 + 0.2
    assert float(rows[1]["loss"]) == 1e-300
    assert [r["late"] for r in rows] == ["", "2.5"]


def test_csv_logger_drops_what_a_resumed_run_does_again(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,loss\n0,3.0\n1,2.0\n2,1.0\n3,0.")  # the process died while writing the last line
    logger = CsvLogger(path, first_epoch=2)
    logger.log_metrics({"epoch": 2, "loss": 1.5})
    assert path.read_text() == "epoch,loss\n0,3.0\n1,2.0\n2,1.5\n"
    CsvLogger(path).log_metrics({"epoch": 0, "other": 1.0})
    assert path.read_text() == "epoch,other\n0,1.0\n"


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_missing_logger_names_the_extra(monkeypatch, tmp_path, name):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == name else find(n, *a))
    with pytest.raises(UserError, match=rf"logger={name} needs the package {name}: .*effkit\[loggers\]"):
        create_loggers({"name": name}, tmp_path)


def test_unknown_loggers_are_explained(tmp_path):
    with pytest.raises(UserError, match=r"logger.name='tensorbord' is not known.*did you mean 'tensorboard'"):
        create_loggers({"name": "tensorbord"}, tmp_path)
    with pytest.raises(UserError, match=r"logger=csv argument='project' is not known"):
        create_loggers({"name": "csv", "project": "x"}, tmp_path)


def test_tensorboard_writes_beside_the_csv(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra effkit[loggers] is not installed")
    train(config(logger={"name": "tensorboard"}), TinyNet(), small_digits(), folder=tmp_path)
    assert len(read_rows(tmp_path / "metrics.csv")) == 1
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_every_job_of_a_sweep_has_its_own_wandb_run_and_group(monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb", reason="the extra effkit[loggers] is not installed")
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    seen = []

    class See(Callback):
        def on_train_start(self, trainer, pl_module):
            run = trainer.loggers[1].experiment
            seen.append((run.id, run.name, run.group, Path(run.dir).is_relative_to(trainer.default_root_dir)))

    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "multirun.yaml").touch()
    for job in ("0", "1"):
        train(config(logger={"name": "wandb"}), TinyNet(), small_digits(), folder=sweep / job, callbacks=[See()])
        assert wandb.run is None
        assert "WANDB_DATA_DIR" not in os.environ
    train(config(logger={"name": "wandb"}), TinyNet(), small_digits(), folder=tmp_path / "alone", callbacks=[See()])
    ids = [
        (folder / "wandb" / "run_id").read_text().strip() for folder in (sweep / "0", sweep / "1", tmp_path / "alone")
    ]
    assert len(set(ids)) == 3
    names = [("sweep/0", "sweep"), ("sweep/1", "sweep"), ("alone", "")]
    assert [(i, n, g or "", d) for i, n, g, d in seen] == [(i, *n, True) for i, n in zip(ids, names, strict=True)]
