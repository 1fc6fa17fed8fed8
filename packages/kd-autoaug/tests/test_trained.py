"""A run folder says how its pictures were prepared: eval and distill take it from there, and from nowhere else."""

import json

import pytest
import torch

from effkit.data import create_data
from effkit.data.preprocessing import Preprocessing
from effkit.errors import UserError
from effkit.runs import load_preprocessing, preprocessing_of, save_preprocessing
from effkit.testing import assert_one_line_mistake, in_process
from kd_autoaug.cli import main
from kd_autoaug.commands.build import build_data, build_student, build_teacher
from kd_autoaug.distillation.weights import save_weights
from kd_autoaug.networks import create_network

SMALL = ["data.limit=96", "trainer.max_epochs=2", "threads=1", "format=json"]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return in_process(main, tmp_path, monkeypatch, capfd)


@pytest.fixture
def trained(run, tmp_path):
    """A run on digits with a normalisation and a split of its own, and its figures."""
    folder = tmp_path / "run"
    words = ["experiment=digits_teacher", *SMALL, "data.mean=0.25", "data.std=0.4", "seed=3"]
    code, out, err = run("train", *words, f"hydra.run.dir={folder}")
    assert code == 0, err
    return folder, json.loads(out)["data"]["final"]


def config(weights, **data):
    return {"data": {"name": "digits", "image_size": 8, "in_chans": 1, **data}, "model": {"name": "digits_cnn"},
            "teacher": {"name": "digits_cnn", "weights": str(weights)}}  # fmt: skip


def test_a_run_is_measured_as_it_was_trained(run, trained):
    folder, final = trained
    known = load_preprocessing(folder)
    assert (known.size, known.mean, known.std, known.class_names) == ((8, 8), (0.25,), (0.4,), tuple("0123456789"))
    assert preprocessing_of(folder / "model.safetensors") == known
    (folder / "preprocessing.json").unlink()  # the file of weights says it too
    save_preprocessing(folder, known)
    for words in (["run=run"], ["model.weights=run", "data=digits_small", "data.limit=96", "seed=3"]):
        code, out, err = run("eval", *words, "threads=1", "format=json")
        assert code == 0, err
        found = json.loads(out)["data"]
        assert found["test_loss"] == pytest.approx(final["val_loss"], rel=1e-6)
        assert found["test_top1"] == final["val_top1"]


def test_other_pictures_are_prepared_as_in_the_run(run, trained, tmp_path):
    """data=digits is 32 pixels wide, in colour and normalised with 0.5; the network of the run wants none of these."""
    code, _, err = run("eval", "run=run", "data=digits", "threads=1", f"hydra.run.dir={tmp_path / 'measured'}")
    assert code == 0, err
    assert load_preprocessing(tmp_path / "measured") == load_preprocessing(trained[0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run=run", "data.mean=0.5"], ["run='run'", "data.mean", "leave"]),
        (
            ["model.weights=run", "data=digits", "data.image_size=16"],
            ["model.weights='run'", "data.image_size", "leave"],
        ),
        (["run=run", "model=wrn_40_2"], ["run='run'", "model", "leave"]),
        (["run=run", "data=photos"], ["other classes", "photos", "'china'"]),
        (["run=nowhere"], ["run='nowhere' does not exist"]),
    ],
)
@pytest.mark.usefixtures("trained")
def test_what_contradicts_a_run_is_refused(run, words, said):
    assert_one_line_mistake("kd-autoaug", run("eval", *words), said)


def test_training_may_go_on_with_other_pictures(trained):
    folder, _ = trained
    cfg = config(folder) | {"model": {"name": "digits_cnn", "weights": str(folder)}}
    data = build_data(cfg)
    assert (data.mean, data.std, data.class_names) == ((0.25,), (0.4,), list("0123456789"))
    assert build_student(cfg, data) is not None


def test_a_teacher_brings_its_normalisation_and_size(trained):
    folder, _ = trained
    data = build_data(config(folder))
    assert data.mean == (0.5,)
    teacher = build_teacher(config(folder), data)
    assert (teacher.mean, teacher.std, teacher.size) == ((0.25,), (0.4,), None)
    larger = build_teacher(config(folder), build_data(config(folder, image_size=12)))
    assert larger.size == (8, 8)
    views = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(larger(views), teacher(views))
    own = config(folder)
    own["teacher"] |= {"mean": 0.1}
    told = build_teacher(own, data)
    assert (told.mean, told.std, told.size) == ((0.1,), (0.4,), None)


def test_a_teacher_of_other_classes_is_refused(tmp_path):
    """As many classes in another order would teach nonsense without a word."""
    facts = create_data("digits", image_size=8, in_chans=1).preprocessing
    shuffled = Preprocessing(facts.size, mean=facts.mean, std=facts.std, class_names=facts.class_names[::-1])
    file = save_weights(create_network("digits_cnn", 10, 1, 8), tmp_path / "teacher.safetensors", shuffled)
    data = build_data(config(file))
    with pytest.raises(UserError, match=r"the teacher was trained on other classes.*class 0 is '9' there and '0' here"):
        build_teacher(config(file), data)
