"""A run that is killed and resumed ends like one that never stopped: same weights to the bit, same rows.

This file is also the program that the kill test runs: ``python test_resume.py FOLDER EPOCH BATCH`` trains until that
batch of that epoch and then kills itself with SIGKILL, which no clean-up survives.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from effkit.atomic import _mark
from effkit.data import create_data
from effkit.errors import UserError
from effkit.lightning import AtomicCheckpointIO, find_resume, network_state, train
from effkit.lightning.agreement import RECORD
from effkit.lightning.logging import read_rows
from effkit.testing import run_cli, write_image_folder
from effkit.testing.training import Halt, assert_same_run, recipe, rows, run


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *run(folder, recipe())


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of a run that died by ``kill -9`` in the middle of its third epoch."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    code, out, err = run_cli([sys.executable, __file__, folder, "2", "2"], timeout=300)
    assert code == -signal.SIGKILL, out + err
    return folder


def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "run"))


# --- killed -----------------------------------------------------------------------------------------------------------


def test_a_killed_run_leaves_its_finished_epochs(killed):
    assert [row["epoch"] for row in rows(killed)] == ["0", "1"]
    assert find_resume(killed).epoch == 2
    assert not (killed / "metrics.json").exists()


def test_killed_and_resumed_equals_never_stopped(whole, killed, tmp_path, capfd):
    whole_folder, whole_model, whole_metrics = whole
    folder = copy(killed, tmp_path)
    model, metrics = run(tmp_path / "elsewhere", recipe(resume=str(folder)))
    assert_same_run(model, folder, whole_model, whole_folder)
    assert [row["epoch"] for row in rows(folder)] == ["0", "1", "2", "3"]
    assert metrics["final"] == whole_metrics["final"]
    assert metrics["best"] == whole_metrics["best"]
    assert metrics["folder"] == str(folder)
    assert not (tmp_path / "elsewhere").exists()  # the resumed job writes on into the run's own folder
    assert json.loads((folder / "metrics.json").read_text())["final"] == metrics["final"]
    best = network_state(whole_folder, "best")
    assert all(torch.equal(v, best[k]) for k, v in network_state(folder, "best").items())
    assert f"resuming {folder} after epoch 2" in capfd.readouterr().err


def test_killed_between_row_and_checkpoint(whole, killed, tmp_path):
    whole_folder, whole_model, _ = whole
    folder = copy(killed, tmp_path)
    with open(folder / "metrics.csv", "a") as file:
        file.write("2,15,0.1,9.9,9.9,9.9,9.9,1.0,1.0\n")  # epoch 2 was logged, its checkpoint never came
        file.write("3,2")
    last = folder / "checkpoints" / "last.ckpt"
    (last.parent / f"{_mark(last)}99999999.half.tmp").write_bytes(b"half a checkpoint")  # of a process that is gone
    model, _ = run(folder, recipe(resume=str(folder)))
    assert_same_run(model, folder, whole_model, whole_folder)
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_killed_again_and_again(whole, killed, tmp_path):
    whole_folder, whole_model, _ = whole
    folder = copy(killed, tmp_path)
    for epoch in (2, 3):
        with pytest.raises(RuntimeError, match="power cut"):
            run(folder, recipe(resume=str(folder)), stop=Halt(RuntimeError("power cut"), epoch, 1))
    model, metrics = run(folder, recipe(resume=str(folder)))
    assert_same_run(model, folder, whole_model, whole_folder)
    assert metrics["seconds"] > sum(float(r["seconds"]) for r in read_rows(folder / "metrics.csv")[:2])


def test_killed_before_the_final_figures(whole, tmp_path):
    whole_folder, whole_model, whole_metrics = whole
    folder = copy(whole_folder, tmp_path)
    (folder / "metrics.json").unlink()
    model, metrics = run(folder, recipe(resume=str(folder)))
    assert_same_run(model, folder, whole_model, whole_folder)
    assert {k: v for k, v in metrics.items() if k != "folder"} == {
        k: v for k, v in whole_metrics.items() if k != "folder"
    }


def test_ctrl_c_is_a_keyboard_interrupt_and_can_be_resumed(whole, tmp_path):
    whole_folder, whole_model, _ = whole
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, recipe(), stop=Halt(int(signal.SIGINT), 1, 1))
    assert signal.getsignal(signal.SIGINT) is handler
    model, _ = run(tmp_path, recipe(resume=str(tmp_path)))
    assert_same_run(model, tmp_path, whole_model, whole_folder)


@pytest.mark.parametrize("schedule", [{"sched": "cosine", "warmup_epochs": 1, "cooldown_epochs": 1}, {"sched": "none"}])
def test_augmented_pictures_and_other_schedules_resume_alike(tmp_path, schedule):
    root = write_image_folder(tmp_path / "pictures", count=6)

    def data():
        return create_data(
            "imagefolder", root=str(root), image_size=16, batch_size=4, num_workers=0, augment="deit", repeats=2, seed=3
        )

    cfg = recipe(scheduler=schedule, ema=None, optimizer={"opt": "sgd", "lr": 0.02, "momentum": 0.9})
    whole_model, _ = run(tmp_path / "whole", cfg, data=data())
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "cut", cfg, stop=Halt(RuntimeError("power cut"), 2, 1), data=data())
    model, _ = run(tmp_path / "cut", {**cfg, "resume": str(tmp_path / "cut")}, data=data())
    assert_same_run(model, tmp_path / "cut", whole_model, tmp_path / "whole")


# --- what resuming allows and refuses ---------------------------------------------------------------------------------


def test_a_cosine_run_can_be_made_longer(tmp_path):
    cfg = recipe(2, scheduler={"sched": "cosine"}, ema=None)
    run(tmp_path, cfg)
    _, metrics = run(tmp_path, recipe(3, scheduler={"sched": "cosine"}, ema=None, resume=str(tmp_path)))
    assert [row["epoch"] for row in rows(tmp_path)] == ["0", "1", "2"]
    assert metrics["epochs"] == 3
    long = [float(row["lr"]) for row in rows(tmp_path)]
    assert long[2] < long[0]


def test_a_checkpoint_file_continues_in_a_new_folder(killed, tmp_path):
    file = shutil.copy(killed / "checkpoints" / "last.ckpt", tmp_path / "mine.ckpt")
    _, metrics = run(tmp_path / "new", recipe(resume=str(file)))
    assert metrics["folder"] == str(tmp_path / "new")
    assert [row["epoch"] for row in rows(tmp_path / "new")] == ["2", "3"]
    assert metrics["best"]["epoch"] in (2, 3)  # that of the first epochs is not at hand


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optimizer": {"opt": "adamw", "lr": 1e-3}},
            r"resume: optimizer was .*'lr': 0.002.* and is .*'lr': 0.001.* now",
        ),
        ({"scheduler": {"sched": "cosine"}}, r"resume: scheduler was .*onecycle.* and is .*cosine"),
        ({"ema": None}, r"resume: ema was 0.9 in the interrupted run and is None now"),
        ({"trainer": recipe(6)["trainer"]}, r"one-cycle schedule was laid out for 4 epochs and cannot .*max_epochs=6"),
        ({"trainer": recipe(1)["trainer"]}, r"resume: .* has done 2 epochs, more than trainer.max_epochs=1"),
        (
            {"trainer": {**recipe()["trainer"], "limit_train_batches": 3}},
            r"trainer was {'limit_train_batches': None} in the interrupted run and is {'limit_train_batches': 3",
        ),
        ({"seed": 4}, r"resume: seed was 3 in the interrupted run and is 4 now; give the same, start a new run"),
        ({"label_smoothing": 0.0, "ema": 0.5}, r"label_smoothing was 0.1 .* is 0.0 now, ema was 0.9 .* is 0.5 now"),
        ({"mixup": {"mixup_alpha": 0.4}}, r"mixup was {'cutmix_alpha': 1.0} .* and is {'cutmix_alpha': None} now"),
        ({"model": {"name": "tiny", "depth": 2}}, r"model was {'name': None, 'depth': None} .* {'name': 'tiny', 'dep"),
        ({"data": {"limit": 9}}, r"resume: data was {'limit': None} in the interrupted run and is {'limit': 9} now"),
        (
            {"trainer": {**recipe()["trainer"], "precision": "64-true"}},
            r"trainer was {'precision': '32-true'} in the .* run and is {'precision': '64-true'} now; .*anyway",
        ),
        (
            {"resume_anyway": True, "optimizer": {"opt": "sgd", "lr": 2e-3}},
            r"the state of optimizer.opt=adamw is no use to sgd: start a new run",
        ),
        ({"resume_anyway": True, "scheduler": {"sched": "none"}}, r"scheduler.sched=onecycle is no use to none"),
        ({"resume_anyway": True, "ema": None}, r"ema was 0.9 and cannot become None within a run"),
        (
            {"resume_anyway": True, "optimizer": {**recipe()["optimizer"], "lr": 1e-3}},
            r"a one-cycle schedule cannot be changed on its way",
        ),
    ],
)
def test_another_recipe_is_refused(killed, tmp_path, changes, message):
    folder = copy(killed, tmp_path)
    before = rows(folder)
    with pytest.raises(UserError, match=message):
        run(folder, recipe(**changes, resume=str(folder)))
    assert rows(folder) == before
    assert not (folder / RECORD).exists()


def test_what_shapes_nothing_may_change(killed, tmp_path):
    folder = copy(killed, tmp_path)
    trainer = {**recipe()["trainer"], "enable_progress_bar": False, "max_time": "01:00:00:00"}
    run(folder, recipe(trainer=trainer, data={"num_workers": 3}, logger={"name": "csv"}, resume=str(folder)))
    (entry,) = json.loads((folder / RECORD).read_text())
    assert (entry["after_epoch"], entry["changed"]) == (2, {})


def test_other_data_behind_the_same_words_is_refused(killed, tmp_path):
    folder = copy(killed, tmp_path)
    fewer = create_data("digits", image_size=16, batch_size=16, limit=40, augment="shift", seed=3)
    message = r"an epoch had 5 updates in the interrupted run and has 3 now; keep data.batch_size"
    with pytest.raises(UserError, match=message):
        run(folder, recipe(resume=str(folder)), data=fewer)


def test_another_network_is_one_line(killed, tmp_path):
    folder = copy(killed, tmp_path)
    data = create_data("digits", image_size=16, batch_size=16, limit=72, augment="shift", seed=3)
    wider = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    with pytest.raises(
        UserError, match=r"the network differs .*layers.0.weight was \(8, 3, 5, 5\) and is not there"
    ) as e:
        train(recipe(resume=str(folder)), wider, data, folder=folder)
    assert "\n" not in str(e.value)


def test_differences_that_are_meant_win_and_are_recorded(tmp_path):
    """Lightning restores the old learning rate and weight decay, and the place of the schedule in old updates."""
    folder = tmp_path / "run"
    first = recipe(2, scheduler={"sched": "cosine", "min_lr": 0.0}, data={"batch_size": 16})
    run(folder, first)
    hydra = folder / ".hydra"
    hydra.mkdir()
    (hydra / "config.yaml").write_text(json.dumps({**first, "resume": None}))
    optimizer = {"opt": "adamw", "lr": 1e-3, "weight_decay": 0.2}
    now = {**first, "optimizer": optimizer, "data": {"batch_size": 24}, "resume": str(folder)}
    now["trainer"] = {**first["trainer"], "max_epochs": 4}
    data = {"image_size": 16, "batch_size": 24, "limit": 72, "augment": "shift", "seed": 3}
    with pytest.raises(
        UserError, match=r"optimizer was {'lr': 0.002, 'weight_decay': 0.05} .*, data was {'batch_size': 16}"
    ):
        run(folder, now, data=create_data("digits", **data))
    assert json.loads((hydra / "config.yaml").read_text())["optimizer"]["lr"] == 2e-3
    run(folder, {**now, "resume_anyway": True}, data=create_data("digits", **data))
    stored = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert {g["weight_decay"] for g in stored["optimizer_states"][0]["param_groups"]} == {0.0, 0.2}
    assert stored["lr_schedulers"] == [{"updates": 12}]  # 4 epochs of 3
    lr = float(read_rows(folder / "metrics.csv")[-1]["lr"])
    assert lr == pytest.approx(1e-3 * (1 + math.cos(math.pi * 11 / 12)) / 2, rel=1e-4)
    (entry,) = json.loads((folder / RECORD).read_text())
    assert entry["changed"] == {
        "optimizer.lr": {"before": 2e-3, "now": 1e-3},
        "optimizer.weight_decay": {"before": 0.05, "now": 0.2},
        "data.batch_size": {"before": 16, "now": 24},
    }
    described = OmegaConf.load(hydra / "config.yaml")
    assert (described.optimizer.lr, described.data.batch_size, described.resume) == (1e-3, 24, None)
    now["trainer"] = {**first["trainer"], "max_epochs": 5}
    _, metrics = run(folder, now, data=create_data("digits", **data))  # from now on these are its words
    assert metrics["epochs"] == 5
    assert [row["epoch"] for row in rows(folder)] == ["0", "1", "2", "3", "4"]


def test_what_is_no_run_is_refused(tmp_path):
    assert find_resume(None) is None
    with pytest.raises(UserError, match=r"resume='.*nowhere' does not exist: give a run folder or a .ckpt file"):
        find_resume(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no checkpoints/last.ckpt: its first epoch never ended"):
        find_resume(tmp_path)
    garbage = tmp_path / "garbage.ckpt"
    garbage.write_bytes(b"no checkpoint at all")
    with pytest.raises(UserError, match=r"the checkpoint .*garbage.ckpt cannot be read"):
        find_resume(garbage)
    weights = tmp_path / "weights.ckpt"
    torch.save({"state_dict": {"model.x": torch.zeros(1)}}, weights)
    with pytest.raises(UserError, match=r"is no checkpoint of a training run"):
        find_resume(weights)
    assert network_state(weights) == {"x": torch.zeros(1)}
    torch.save({"layer": nn.Linear(2, 2)}, weights)
    with pytest.raises(UserError, match=r"cannot be read"):  # would have to run code from the file
        find_resume(weights)
    torch.save({"state_dict": {}}, weights)
    with pytest.raises(UserError, match=r"holds no network"):
        network_state(weights)


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    io, path = AtomicCheckpointIO(), tmp_path / "deep" / "last.ckpt"
    io.save_checkpoint({"epoch": 1}, path)
    before = path.read_bytes()

    def save(checkpoint, file):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match="no space left"):
        io.save_checkpoint({"epoch": 2}, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]
    assert io.load_checkpoint(path) == {"epoch": 1}


if __name__ == "__main__":
    target, epoch, batch = sys.argv[1:]
    run(target, recipe(), stop=Halt(int(signal.SIGKILL), int(epoch), int(batch)))
