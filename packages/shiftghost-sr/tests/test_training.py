"""Training: learns real photographs, resumes to the bit, tells shifts where it stands."""

import pytest
import torch

from effkit.errors import UserError
from effkit.lightning import train
from effkit.testing.training import Halt, assert_same_run
from shiftghost_sr.layers.schedule import shift_logits, shifts
from shiftghost_sr.models.zoo import create_model
from shiftghost_sr.training.data import SRData
from shiftghost_sr.training.module import SRModule, prepared
from shiftghost_sr.training.schedule import ShiftSchedule, direction_counts, mean_entropy

SMALL = {"blocks": 1, "features": 8}
TRAINER = {"accelerator": "cpu", "devices": 1, "precision": "32-true", "deterministic": True}


def recipe(epochs=3, **changes):
    return {
        "trainer": {"max_epochs": epochs, **TRAINER},
        "optimizer": {"opt": "adamw", "lr": 1e-3, "weight_decay": 0.01},
        "scheduler": {"sched": "cosine", "min_lr": 1e-5},
        "ema": 0.9,
        "seed": 3,
        "resume": None,
        **changes,
    }


def network(ghost="default"):
    torch.manual_seed(0)
    return create_model("edsr_baseline", 2, ghost=ghost, **SMALL)


def data(**changes):
    options = {"scale": 2, "patch": 16, "crops": 24, "batch_size": 4, "limit": 1, "seed": 3}
    return SRData(**{**options, **changes})


def fit(folder, cfg, *, stop=None, model=None, shift_epochs=50, **options):
    torch.set_num_threads(1)
    model = network() if model is None else model
    module = SRModule(
        model,
        optimizer=cfg["optimizer"],
        scheduler=cfg["scheduler"],
        ema=cfg["ema"],
        shift_epochs=shift_epochs,
        **options,
    )
    metrics = train(cfg, model, data(), module=module, folder=folder, callbacks=[stop] if stop else [])
    return model, metrics


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return (*fit(folder, recipe()), folder)


@pytest.mark.parametrize("batch", [5, 2])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, whole, batch):
    """After an epoch and in the middle of one (a signal)."""
    how = RuntimeError("power cut") if batch == 2 else KeyboardInterrupt()
    with pytest.raises(type(how)):
        fit(tmp_path, recipe(), stop=Halt(how, 1, batch))
    model, _ = fit(tmp_path, recipe(resume=str(tmp_path)), model=network())
    assert_same_run(model, tmp_path, whole[0], whole[2])


def test_figures_of_an_epoch(whole):
    _, metrics, _ = whole
    assert {"train_loss", "val_psnr", "shift_entropy", "shift_moved"} <= set(metrics["final"])
    assert set(metrics["best"]) == {"epoch", "val_psnr"}


def test_another_loss_is_another_run(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, recipe(), stop=Halt(KeyboardInterrupt(), 1, 5))
    with pytest.raises(UserError, match="loss was l1"):
        fit(tmp_path, recipe(resume=str(tmp_path)), loss="mse")


def test_shifts_are_told_the_epoch():
    model = network()

    class Place:
        current_epoch, max_epochs, num_training_batches = 2, 4, 10

    ShiftSchedule().on_train_epoch_start(Place, model)
    assert [shift.epoch for _, shift in shifts(model)] == [3.0, 3.0]
    ShiftSchedule().on_train_batch_start(Place, model, None, 5)
    assert {shift.epoch for _, shift in shifts(model)} == {3.0}
    ShiftSchedule(per_run=100).on_train_batch_start(Place, model, None, 5)
    assert {shift.epoch for _, shift in shifts(model)} == {63.5}
    for _, shift in shifts(model):
        shift.set_directions([(0, 1)])
    assert direction_counts(model) == {(0, 1): 2}
    for logits in shift_logits(model):
        torch.nn.init.zeros_(logits)
    assert mean_entropy(model) == pytest.approx(torch.log2(torch.tensor(9.0)).item())


def test_a_network_from_a_file_is_put_into_training_mode():
    """In eval mode its shifts would draw no noise, and never look elsewhere."""
    assert SRModule(network().eval()).model.training


def test_logits_are_never_decayed_and_have_a_rate_of_their_own():
    model = network()
    module = SRModule(model, optimizer={"opt": "adamw", "lr": 1e-3, "weight_decay": 0.1}, shift_lr=10)
    groups = module.create_optimizer(module.hparams["optimizer"]).param_groups
    own = {id(p) for p in shift_logits(model)}
    (group,) = [g for g in groups if {id(p) for p in g["params"]} & own]
    assert {id(p) for p in group["params"]} == own
    assert (group["weight_decay"], group["lr"]) == (0.0, 0.01)
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    assert {g["weight_decay"] for g in groups} == {0.0, 0.1}


def test_distillation_is_towards_the_teacher():
    """With its whole weight on the teacher, the loss of the teacher's copy is nothing."""
    teacher, model = network(None), network(None)
    module = SRModule(model, teacher=teacher, distillation=1.0)
    batch = next(iter(data().train_dataloader()))
    loss, distance = module.step(batch)
    assert loss == distance == 0
    assert not any("teacher" in name for name in module.state_dict())
    loss, distance = SRModule(model, teacher=teacher, distillation=0.25).step(batch)
    plain, nothing = SRModule(model).step(batch)
    assert nothing is None
    assert torch.equal(loss, 0.75 * plain + 0.25 * distance)


def test_what_a_network_is_given():
    low = torch.randint(0, 256, (2, 3, 8, 6), dtype=torch.uint8)
    assert torch.equal(prepared(network(), low), low / 255)
    luma = prepared(create_model("vdsr", 3, layers=3, features=4), low)
    assert luma.shape == (2, 1, 24, 18)
    assert 16 / 255 - 0.1 < luma.min() < luma.max() < 235 / 255 + 0.1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "l2"}, "loss='l2'"),
        ({"distillation": 2}, "distillation=2"),
        ({"distillation": 0.5}, "needs a teacher"),
        ({"shift_lr": 0}, "shift_lr=0"),
        ({"shift_epochs": -1}, "shift_epochs=-1"),
        ({"ema": 1.0}, "ema=1.0"),
        ({"teacher": create_model("edsr_baseline", 3, **SMALL), "distillation": 0.5}, "scale=3"),
    ],
)
def test_mistakes(options, words):
    with pytest.raises(UserError, match=words):
        SRModule(network(), **options)
