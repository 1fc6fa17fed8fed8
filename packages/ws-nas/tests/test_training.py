"""A training is the same whether stopped or not; what goes wrong is named and can be gone on from."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import pytest
import torch

from effkit.data.selection import SelectionData
from effkit.errors import UserError
from effkit.lightning import load_checkpoint, train
from effkit.testing.training import Halt, assert_same_run, rows
from ws_nas.families.registry import make_family
from ws_nas.spaces.registry import get_space
from ws_nas.training.data import ValidationStream, stream_of
from ws_nas.training.module import FamilyModule, average
from ws_nas.training.pictures import Scoring, open_data

EPOCHS = 2
SMALL = {"enas": {"updates": 2, "samples": 3}, "few_shot": {"joint": 0.5}, "individual": {"candidates": 2}}


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recipe(**changes):
    trainer = {"max_epochs": EPOCHS, "accelerator": "cpu", "devices": 1, "precision": "32-true", "deterministic": True}
    cfg = {
        "trainer": {**trainer, "gradient_clip_val": 5.0, "enable_progress_bar": False},
        "optimizer": {"opt": "momentum", "lr": 0.05, "momentum": 0.9, "weight_decay": 3e-4},
        "scheduler": {"sched": "cosine"},
        "seed": 3,
        "resume": None,
    }
    return {**cfg, **changes}


def parts(name="spos", space="digits_chain", seed=3, sizes=None, **options):
    torch.manual_seed(seed)
    space = get_space(space, **(sizes or {"width": 4}))
    data = SelectionData(open_data({"name": "digits", "limit": 72, "batch_size": 16, "seed": seed}, space.layout))
    family = make_family(name, space, space.supernet(), seed, **{**SMALL.get(name, {}), **options})
    return data, family


def module_of(cfg, data, family):
    return FamilyModule(
        family,
        data.num_classes,
        stream_of(data),
        optimizer=cfg["optimizer"],
        scheduler=cfg["scheduler"],
        preprocessing=data.preprocessing,
    )


def fit(folder, cfg=None, name="spos", stop=None, **options):
    cfg = cfg or recipe()
    data, family = parts(name, **options)
    module = module_of(cfg, data, family)
    train(cfg, family.network, data, module=module, folder=Path(folder), callbacks=[stop] if stop else [])
    return family


def assert_same_family(one, other):
    left, right = one.state_dict(), other.state_dict()
    assert left.keys() == right.keys()
    for key, value in left.get("architecture", {}).items():
        assert torch.equal(value, right["architecture"][key]), key


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs that nothing interrupts, by family, each made once."""
    made = {}

    def of(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = folder, fit(folder, name=name)
        return made[name]

    return of


@pytest.mark.parametrize("name", ["spos", "enas", "asng", "few_shot"])
def test_stopped_and_resumed_equals_never_stopped(whole, tmp_path, name):
    folder, expected = whole(name)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tmp_path, name=name, stop=Halt(RuntimeError("power cut"), 1, 1))
    resumed = fit(tmp_path, recipe(resume=str(tmp_path)), name=name)
    assert_same_run(resumed.network, tmp_path, expected.network, folder)
    assert_same_family(resumed, expected)
    assert len(rows(folder)) == EPOCHS


def test_the_same_seed_gives_the_same_log_and_another_does_not(whole, tmp_path):
    folder, _ = whole("spos")
    fit(tmp_path / "same")
    fit(tmp_path / "other", seed=4)
    assert rows(folder) == rows(tmp_path / "same")
    assert rows(folder) != rows(tmp_path / "other")


def broken(family, at):
    """A family whose pictures are NaN at one step: activations, their statistics and the loss follow."""
    before = family.training_step

    def step(batch, number):
        if number == at:
            batch.images.fill_(float("nan"))
        return before(batch, number)

    family.training_step = step


@pytest.mark.parametrize("at", [2, 4])
def test_a_nan_names_the_genotype_and_leaves_a_checkpoint_to_go_on_from(whole, tmp_path, at):
    folder, expected = whole("spos")
    cfg = recipe()
    data, family = parts()
    broken(family, at)
    path = family.space.str(family.paths(at)[0])
    with pytest.raises(UserError, match=rf"loss of {path} became nan: lower .*; resume=.*cut goes on from before"):
        train(cfg, family.network, data, module=module_of(cfg, data, family), folder=tmp_path / "cut")
    file = "last.ckpt" if at % 4 == 0 else "step.ckpt"
    stored = load_checkpoint(tmp_path / "cut" / "checkpoints" / file)
    assert stored["global_step"] == at
    assert all(torch.isfinite(v).all() for v in stored["state_dict"].values())
    resumed = fit(tmp_path / "cut", recipe(resume=str(tmp_path / "cut")))
    assert_same_run(resumed.network, tmp_path / "cut", expected.network, folder)


def test_a_nan_in_the_first_step_says_that_nothing_was_learnt(tmp_path):
    cfg = recipe()
    data, family = parts()
    broken(family, 0)
    with pytest.raises(UserError, match=r"became nan.*it was the first step, nothing has been learnt"):
        train(cfg, family.network, data, module=module_of(cfg, data, family), folder=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": {"width": 8}}, r"the checkpoint is of another space: its hash is \w+, that of space=digits_chain"),
        ({"space": "nb201_tiny", "sizes": {"channels": 4}}, r"the checkpoint is of another space: .*space=nb201_tiny"),
        ({"name": "fairnas"}, r"the checkpoint is of family=spos, not of family=fairnas"),
    ],
)
def test_checkpoints_of_others_are_refused(whole, tmp_path, changes, message):
    file = shutil.copy(whole("spos")[0] / "checkpoints" / "last.ckpt", tmp_path / "mine.ckpt")
    longer = {**recipe()["trainer"], "max_epochs": EPOCHS + 1}
    with pytest.raises(UserError, match=message):
        fit(tmp_path / "new", recipe(resume=str(file), trainer=longer), **changes)


def test_what_lightning_leaves_to_a_module_is_done_or_refused(tmp_path):
    with pytest.raises(UserError, match=r"trainer\.accumulate_grad_batches=2 must be 1"):
        fit(tmp_path, recipe(trainer={**recipe()["trainer"], "accumulate_grad_batches": 2}))
    with pytest.raises(UserError, match=r"precision=fp16"):
        fit(tmp_path, recipe(trainer={**recipe()["trainer"], "precision": "16-mixed"}))


def moved(folder, **trainer):
    """How far single weights, and all together, have moved in four plain steps."""
    plain = {"opt": "momentum", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    trainer = {**recipe()["trainer"], "max_epochs": 1, **trainer}
    family = fit(folder, recipe(trainer=trainer, optimizer=plain, scheduler=None))
    pairs = zip(family.network.parameters(), parts()[1].network.parameters(), strict=True)
    change = torch.cat([(p - q).detach().flatten() for p, q in pairs])
    return float(change.abs().max()), float(change.norm())


def test_gradients_are_clipped(tmp_path):
    free = moved(tmp_path / "free", gradient_clip_val=None)
    norm = moved(tmp_path / "norm", gradient_clip_val=1e-4)
    value = moved(tmp_path / "value", gradient_clip_val=1e-4, gradient_clip_algorithm="value")
    assert norm[1] <= 4 * 0.1 * 1e-4 * 1.01  # four steps of a gradient no longer than 1e-4
    assert value[0] <= 4 * 0.1 * 1e-4 * 1.01
    assert value[1] > norm[1] * 2
    assert free[1] > 100 * norm[1]


def test_validation_pictures_come_in_whole_passes_and_by_step(tmp_path):
    data, _ = parts()
    stream = stream_of(data)
    size, batch = len(data.val), stream.order.batch
    seen = [i for step in range(size) for i in stream.order.at(step)]
    for start in range(0, len(seen) - size, size):
        assert sorted(seen[start : start + size]) == list(range(size))
    again = ValidationStream(data.val, batch, 3)
    for one, other in zip(again.at(5), stream.at(5), strict=True):
        assert torch.equal(one, other)
    # The same from a loader whose pictures are not tensors in memory; one iterator serves steps in turn.
    loaded = ValidationStream([data.val[i] for i in range(size)], batch, 3)
    first = loaded.at(4)
    iterator = loaded._iterator
    second = loaded.at(5)
    assert loaded._iterator is iterator
    assert torch.equal(first[0], stream.at(4)[0])
    assert torch.equal(second[1], stream.at(5)[1])
    assert torch.equal(loaded.at(1)[0], stream.at(1)[0])


def test_a_closed_stream_leaves_no_processes():
    data = [(torch.zeros(1, 2, 2, dtype=torch.uint8), 0)] * 4
    stream = ValidationStream(data, 2, 0, num_workers=1)
    before = set(multiprocessing.active_children())
    first = stream.at(0)[0]
    assert set(multiprocessing.active_children()) - before
    stream.close()
    assert not set(multiprocessing.active_children()) - before
    assert torch.equal(stream.at(0)[0], first)  # begun anew where it is asked again
    stream.close()


def test_scores_are_of_re_estimated_statistics_and_leave_the_network_alone():
    data, family = parts("few_shot")
    before = {k: v.clone() for k, v in family.network.state_dict().items()}
    scoring = Scoring(family, data.data, data.val, data.train, metric="loss", calibration=40)
    genotypes = list(family.space)[:5]
    scores = scoring(genotypes)
    assert scores == pytest.approx([scoring([g])[0] for g in genotypes], rel=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in family.network.state_dict().items())
    accuracy = Scoring(family, data.data, data.val, data.train, metric="accuracy", calibration=40)(genotypes)
    assert all(0 <= a <= 1 for a in accuracy)
    with pytest.raises(UserError, match=r"scoring\.metric='f1'"):
        Scoring(family, data.data, data.val, data.train, metric="f1")
    with pytest.raises(UserError, match=r"scoring\.calibration=1 must be a whole number of at least 2"):
        Scoring(family, data.data, data.val, data.train, calibration=1)


def test_averaging_alone_changes_nothing():
    tensor = torch.tensor([1.0, 2.0])
    average([tensor])
    assert tensor.tolist() == [1.0, 2.0]


def test_data_must_fit_the_space():
    space = get_space("nas_bench_macro", classes=7)
    with pytest.raises(UserError, match=r"networks are for 7 classes, but data=digits has 10"):
        open_data({"name": "digits"}, space.layout)
