"""Proxy training: repeatable, going on where it was, inheriting, and blind to the test split."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from effkit.data import create_data
from effkit.data.selection import SelectionData
from effkit.errors import UserError
from effkit.testing.images import write_image_folder
from greedy_enlarge.families import base
from greedy_enlarge.networks.build import build
from greedy_enlarge.search.greedy import Settings, search
from greedy_enlarge.search.moves import Moves
from greedy_enlarge.search.racing import Racing
from greedy_enlarge.search.tasks import Task
from greedy_enlarge.training.data import open_data
from greedy_enlarge.training.final import FreshTest, fresh_accuracy
from greedy_enlarge.training.proxy import ProxyTrain, _Average, measure, recalibrate

TEXTURES = {"name": "textures", "limit": 170, "batch_size": 34}
SPEC = base("tiny")


@pytest.fixture
def evaluator(tmp_path):
    return ProxyTrain.for_search(SPEC, folder=str(tmp_path), data=TEXTURES, epochs=1, calibration=2, threads=1)


def test_the_test_split_cannot_be_had():
    view = SelectionData(open_data(TEXTURES, SPEC, 0))
    with pytest.raises(AssertionError, match="must not read the test split"):
        view.test_dataloader()


def test_data_that_validates_on_its_test_pictures_gives_up_training_pictures_instead():
    data = create_data("digits", image_size=8, in_chans=1)
    view = SelectionData(data)
    assert (len(view.train), len(view.val)) == (1150, 287)
    train = {tuple(p.flatten().tolist()) for p in data.pictures("train")}
    assert {tuple(p.flatten().tolist()) for p in view.val.tensors[0]} <= train


def test_data_must_fit_the_network(tmp_path):
    with pytest.raises(UserError, match=r"spec has 17 classes, but data=digits has 10"):
        ProxyTrain.for_search(SPEC, folder=str(tmp_path), data={"name": "digits"})
    with pytest.raises(UserError, match=r"evaluator\.epochs=0"):
        ProxyTrain.for_search(SPEC, folder=str(tmp_path), data=TEXTURES, epochs=0)


def test_an_evaluation_repeats_exactly(evaluator):
    task = Task.make(0, SPEC, 1, 0)
    first, second = evaluator.evaluate(task), evaluator.evaluate(task)
    assert first.metrics == second.metrics
    assert first.cost["samples"] == 170
    assert 0 <= first.metrics["accuracy"] <= 1
    other = evaluator.evaluate(Task.make(0, SPEC, 1, 1))
    assert other.metrics != first.metrics


def test_going_on_costs_only_what_is_new(evaluator):
    short = evaluator.evaluate(Task.make(0, SPEC, 1, 0, samples=170))
    longer = evaluator.evaluate(Task.make(0, SPEC, 1, 0, samples=510, continues=short.state))
    assert (short.cost["samples"], longer.cost["samples"]) == (170, 340)
    with pytest.raises(UserError, match="is gone, which this search goes on from"):
        evaluator.evaluate(Task.make(0, SPEC, 1, 0, samples=510, continues="lost.pt"))


def test_candidates_start_as_their_parent(evaluator, tmp_path):
    parent = evaluator.evaluate(Task.make(0, SPEC, 0, 0))
    target = SPEC.replace(depths=(1, 2, 1))
    task = Task.make(0, target, 1, 0, parent=SPEC, parent_state=parent.state)
    grown, state, done = evaluator._start(task)
    small = build(SPEC)
    small.load_state_dict(torch.load(tmp_path / parent.state, weights_only=True)["model"])
    x = torch.randn(2, 1, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(grown.eval()(x), small.eval()(x), rtol=1e-4, atol=1e-5)
    assert (state, done) == ({}, 0)


def test_norm_statistics_are_means_over_batches():
    view = SelectionData(open_data(TEXTURES, SPEC, 0))
    model = build(SPEC)
    recalibrate(model, view, 3)
    assert model.bn1.momentum == 0.1
    batches = [view.normalize(images) for images, _ in view.train_dataloader()][:3]
    with torch.no_grad():
        expected = torch.stack([model.conv_stem(b).mean((0, 2, 3)) for b in batches]).mean(0)
    torch.testing.assert_close(model.bn1.running_mean, expected, rtol=1e-4, atol=1e-5)
    accuracy, loss = measure(model, view)
    assert 0 <= accuracy <= 1 < loss


def test_a_diverged_candidate_is_a_failed_one(evaluator):
    bad = dataclasses.replace(evaluator, optimizer={"opt": "sgd", "lr": 1e30}, calibration=0)
    found = bad.evaluate(Task.make(0, SPEC, 1, 0))
    assert found.status == "failed"
    assert "loss" in found.reason


def test_a_search_with_racing_and_inheritance(evaluator):
    moves = Moves(width_step=4, kinds=("depth",))
    settings = Settings(steps=1, delta=0.15, delta_final=0.15, moves=moves, racing=Racing((170, 340)))
    found = search(SPEC, 230_000, evaluator, settings)
    assert found.spec.includes(SPEC)
    assert found.evaluated > 3


@pytest.mark.parametrize(("splits", "sizes"), [(("train", "val"), (16, 4)), (("train", "val", "test"), (20, 10))])
def test_a_search_reads_folders_of_pictures_but_never_their_test_split(tmp_path, splits, sizes):
    root = write_image_folder(tmp_path / "data", splits=splits, count=10 if len(splits) == 2 else 5, size=(24, 24))
    if len(splits) == 3:
        root = write_image_folder(tmp_path / "data", splits=("train",), count=10, size=(24, 24))
    options = {"name": "imagefolder", "root": str(root), "batch_size": 4, "num_workers": 0, "augment": "light"}
    spec = base("tiny", classes=2, in_chans=3)
    view = SelectionData(open_data(options, spec, 0))
    assert (len(view.train), len(view.val)) == sizes
    evaluator = ProxyTrain.for_search(
        spec, folder=str(tmp_path / "s"), data=options, epochs=1, calibration=2, threads=1
    )
    assert evaluator.n_val == sizes[1]
    found = evaluator.evaluate(Task.make(0, spec, 0, 0))
    assert found.status == "ok", found.reason
    test = root / ("test" if "test" in splits else "val")
    paths = {str(p) for split in (view.train, view.val) for p in paths_of(split)}
    assert paths
    assert not any(p.startswith(str(test)) for p in paths)
    with pytest.raises(AssertionError, match="must not read the test split"):
        len(view.data.split("test"))


def paths_of(split):
    if hasattr(split, "indices"):
        every = list(paths_of(split.dataset))
        return [every[i] for i in split.indices]
    return [path for path, _ in split.samples]


def test_held_out_pictures_are_not_augmented(tmp_path):
    root = write_image_folder(tmp_path, count=10)
    options = {"name": "imagefolder", "root": str(root), "batch_size": 4, "num_workers": 0, "augment": "light"}
    data = open_data(options, base("tiny", classes=2, in_chans=3), 0)
    view = SelectionData(data)
    first = view.val[0][0]
    torch.testing.assert_close(first, data.preprocessing.picture(paths_of(view.val)[0]))
    assert torch.equal(first, view.val[0][0])


def test_channels_must_fit(tmp_path):
    root = write_image_folder(tmp_path)
    with pytest.raises(UserError, match=r"spec has 1 channels, but data=imagefolder has 3"):
        open_data({"name": "imagefolder", "root": str(root)}, base("tiny", classes=2), 0)


def test_an_incomplete_last_batch_that_is_left_out_is_not_counted(tmp_path):
    options = {**TEXTURES, "batch_size": 50, "drop_last": True}
    found = ProxyTrain.for_search(SPEC, folder=str(tmp_path), data=options)
    assert found.n_train == 150
    with pytest.raises(UserError, match=r"samples=200: proxy training goes by whole epochs"):
        found.check_samples(None, [150, 200])
    found.check_samples(None, [150, 300], 450)


def test_an_average_of_the_weights_is_what_is_scored(evaluator, tmp_path):
    task = Task.make(0, SPEC, 1, 0)
    plain = evaluator.evaluate(task)
    averaged = dataclasses.replace(evaluator, ema=0.5, calibration=0)
    found = averaged.evaluate(task)
    state = torch.load(tmp_path / found.state, weights_only=True)
    raw = torch.load(tmp_path / plain.state, weights_only=True)["model"]
    name = "conv_stem.weight"
    torch.testing.assert_close(state["model"][name], raw[name])  # the training itself is the same
    assert not torch.equal(state["average"][name], state["model"][name])
    torch.testing.assert_close(state["scored"][name], state["average"][name])
    # Cut into rungs, the average goes on as if it had not been.
    whole = averaged.evaluate(dataclasses.replace(task, samples=340))
    short = averaged.evaluate(dataclasses.replace(task, samples=170))
    longer = averaged.evaluate(dataclasses.replace(task, samples=340, continues=short.state))
    states = [torch.load(tmp_path / r.state, weights_only=True) for r in (whole, longer)]
    assert states[1]["average"].keys() == states[0]["average"].keys()
    for bad in (0, 1.0, True, "0.9"):
        with pytest.raises(UserError, match=r"evaluator\.ema="):
            ProxyTrain.for_search(SPEC, folder=str(tmp_path), data=TEXTURES, ema=bad)


def test_the_average_is_the_recursion(tmp_path):
    model = build(SPEC)
    average = _Average(0.75, model, None)
    start = model.conv_stem.weight.detach().clone()
    module = SimpleNamespace(device=torch.device("cpu"), model=model)
    expected = start.clone()
    for step in range(3):
        with torch.no_grad():
            model.conv_stem.weight.add_(step + 1.0)
        average.on_train_batch_end(None, module, None, None, step)
        expected = 0.75 * expected + 0.25 * model.conv_stem.weight.detach()
    torch.testing.assert_close(average.model.module.conv_stem.weight.detach(), expected)
    again = _Average(0.75, model, average.model.module.state_dict())
    torch.testing.assert_close(again.model.module.conv_stem.weight.detach(), expected)


def test_fresh_figures_are_of_the_test_split_and_leave_no_weights(evaluator, tmp_path):
    fresh = FreshTest(evaluator)
    found = fresh.evaluate(Task.make(5, SPEC, 0, 0))
    assert set(found.metrics) == {"test_accuracy", "val_accuracy"}
    assert list(tmp_path.glob("*.pt")) == []
    assert fresh_accuracy(SPEC, TEXTURES, tmp_path, seed=5, epochs=1, threads=1) == pytest.approx(
        dataclasses.replace(fresh, proxy=dataclasses.replace(evaluator, calibration=20)).evaluate(
            Task.make(5, SPEC, 0, 0)).metrics["test_accuracy"])  # fmt: skip
