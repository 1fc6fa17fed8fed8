"""Proxy training: repeatable, going on where it was, inheriting, and blind to the test split."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from effkit.data import create_data
from effkit.errors import UserError
from greedy_enlarge.families import base
from greedy_enlarge.networks.build import build
from greedy_enlarge.search.greedy import Settings, search
from greedy_enlarge.search.moves import Moves
from greedy_enlarge.search.racing import Racing
from greedy_enlarge.search.tasks import Task
from greedy_enlarge.training.data import SelectionData, open_data
from greedy_enlarge.training.proxy import ProxyTrain, measure, recalibrate

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
    with pytest.raises(UserError, match=r"spec.classes=17, but data=digits has 10"):
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
    grown, optimizer, done = evaluator._start(task)
    small = build(SPEC)
    small.load_state_dict(torch.load(tmp_path / parent.state, weights_only=True)["model"])
    x = torch.randn(2, 1, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(grown.eval()(x), small.eval()(x), rtol=1e-4, atol=1e-5)
    assert (optimizer, done) == (None, 0)


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
