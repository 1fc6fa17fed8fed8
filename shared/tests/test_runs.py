"""A run folder tells everything about its network: trained, evaluated and asked about files, the same logits."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from torch import nn

from effkit.checkpoints import write_safetensors
from effkit.data import Preprocessing, create_data, find_pictures
from effkit.errors import UserError
from effkit.lightning import Classifier, evaluate, network_state, train
from effkit.runs import Run, config_of, given_words, load_preprocessing, preprocessing_of, save_preprocessing
from effkit.testing import write_image_folder

SIZE = 16


def network(classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 5, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * (SIZE // 2) ** 2, classes))


def config(data, **changes):
    trainer = {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "precision": "32-true"}
    recipe = {"trainer": trainer, "optimizer": {"opt": "adamw", "lr": 1e-3}, "data": data, "model": {"name": "tiny"}}
    return {**recipe, **changes}


def words(root, **changes):
    return {
        "name": "imagefolder", "root": str(root), "image_size": SIZE, "batch_size": 6, "num_workers": 0,
        "mean": None, "std": None, "crop_pct": 0.8, **changes,
    }  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a folder of pictures with ``mean: null``, as a command leaves it."""
    base = tmp_path_factory.mktemp("runs")
    root = write_image_folder(base / "pictures", classes=("ant", "bee", "cow"), count=6, size=(30, 44))
    data = words(root)
    folder, model = base / "run", network()
    hydra = folder / ".hydra"
    hydra.mkdir(parents=True)
    (hydra / "config.yaml").write_text(json.dumps({"seed": 3, **config(data), "threads": "${seed}"}))
    sources = [{"path": "hydra.conf", "provider": "hydra"}, {"path": "some_paper.configs", "provider": "main"}]
    (hydra / "hydra.yaml").write_text(json.dumps({"hydra": {"runtime": {"config_sources": sources}}}))
    (folder / "status.json").write_text('{"status": "finished", "command": "train"}')
    metrics = train(config(data), model, create_data(**data), folder=folder)
    return root, folder, model, metrics


def logits(model, images):
    with torch.no_grad():
        return model.eval()(images)


def test_trained_evaluated_and_predicted_pictures_get_the_same_logits(trained, tmp_path):
    """Of a run with ``mean: null``, 7 of 36 pictures got another class from `predict` than from `eval`."""
    root, folder, _, metrics = trained
    run = Run.open(folder)
    assert run.preprocessing.mean == (0.485, 0.456, 0.406)
    model = network()
    model.load_state_dict(network_state(run.weights("best")))
    data = run.open_data({}, {})
    module = Classifier(model, data.num_classes, preprocessing=data.preprocessing)
    evaluated = torch.cat([logits(module, images) for images, _ in data.test_dataloader()])
    files = find_pictures([root / "val" / name for name in run.class_names])
    predicted = logits(model, run.preprocessing.batch(files))
    torch.testing.assert_close(predicted, evaluated, rtol=0, atol=1e-6)
    assert torch.equal(predicted.argmax(1), evaluated.argmax(1))
    labels = torch.tensor([run.class_names.index(file.split("/")[-2]) for file in files])
    found = evaluate(config({}), model, create_data(**words(root, mean=0.1, crop_pct=1.0)),
                     preprocessing=run.preprocessing, folder=tmp_path)  # fmt: skip
    right = 100 * float((predicted.argmax(1) == labels).float().mean())
    assert found["test_top1"] == pytest.approx(right, abs=1e-4)
    assert metrics["best"]["val_top1"] == pytest.approx(right, abs=1e-4)
    assert load_preprocessing(tmp_path) == run.preprocessing


def test_a_run_says_what_it_is(trained):
    root, folder, *_ = trained
    run = Run.open(str(folder), package="some_paper")
    assert (run.package, run.command, run.status) == ("some_paper", "train", "finished")
    assert run.class_names == ["ant", "bee", "cow"]
    assert run.config["model"] == {"name": "tiny"}
    assert run.config["threads"] == 3  # resolved
    assert run.preprocessing == create_data(**words(root)).preprocessing
    assert run.weights() == run.weights("last") == folder / "checkpoints" / "last.ckpt"


def test_a_run_made_from_python_is_one_too(trained, tmp_path):
    _, folder, *_ = trained
    copy = shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(copy / ".hydra")
    run = Run.open(copy, package="some_paper")
    assert (run.package, run.config["data"]["image_size"]) == ("", SIZE)


def test_a_file_of_weights_tells_its_preprocessing(trained, tmp_path):
    from safetensors.torch import save_file

    _, folder, *_ = trained
    facts = load_preprocessing(folder)
    assert preprocessing_of(folder / "model.safetensors") == facts  # by the folder it lies in
    alone = shutil.copy(folder / "checkpoints" / "best.ckpt", tmp_path / "mine.ckpt")
    assert preprocessing_of(alone) == facts
    other = Preprocessing(8)
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors", metadata=other.to_metadata())
    save_file({"x": torch.zeros(1)}, tmp_path / "b.safetensors")
    assert preprocessing_of(tmp_path / "a.safetensors") == other
    assert preprocessing_of(tmp_path / "b.safetensors") is None
    for name in ("c.safetensors", "c.ckpt"):
        (tmp_path / name).write_bytes(b"garbage")
        assert preprocessing_of(tmp_path / name) is None


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("interrupted", "holds nothing yet: it was stopped before it began to train"),
        ("failed", "failed before it began to train: its log says why"),
        ("running", "holds nothing yet"),
    ],
)
def test_a_run_that_was_stopped_at_once_says_so(tmp_path, status, said):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("{seed: 3}")
    (tmp_path / "status.json").write_text(json.dumps({"status": status, "command": "train"}))
    with pytest.raises(UserError, match=said):
        Run.open(tmp_path)


def test_a_run_that_kept_no_preprocessing_is_opened_by_who_knows_it(trained, tmp_path):
    _, folder, *_ = trained
    run = shutil.copytree(folder, tmp_path / "run")
    (run / "preprocessing.json").unlink()
    write_safetensors(run / "model.safetensors", {"x": torch.zeros(1)})
    asked = []

    def earlier(data):
        asked.append(data["name"])
        return Preprocessing(size=SIZE, class_names=("a", "b", "c"))

    assert Run.open(run, earlier=earlier).preprocessing == preprocessing_of(run / "model.safetensors", earlier)
    assert asked == ["imagefolder"] * 2
    assert Run.open(folder, earlier=earlier).class_names == ["ant", "bee", "cow"]  # kept, so nobody is asked
    assert preprocessing_of(run / "model.safetensors") is None
    with pytest.raises(UserError, match="does not exist"):
        Run.open(run)


def test_a_file_of_weights_tells_the_configuration_of_its_run(trained, tmp_path):
    _, folder, *_ = trained
    assert config_of(folder / "model.safetensors")["threads"] == 3
    assert config_of(folder / "checkpoints" / "best.ckpt")["model"] == {"name": "tiny"}
    assert config_of(tmp_path / "elsewhere.pth") == {}


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: shutil.rmtree(f), r"run='.*run' does not exist: give the folder of a run"),
        (lambda f: (shutil.rmtree(f), f.write_text("x")), r"run='.*run' is a file: give the folder"),
        (lambda f: (shutil.rmtree(f), f.mkdir()), r"run='.*run' is no run folder: it has none of \.hydra/config.yaml"),
        (lambda f: (f / "multirun.yaml").write_text(""), r"run='.*run' is a sweep of several runs"),
        (lambda f: (f / ".hydra" / "config.yaml").write_text("a: ["), r"config\.yaml is damaged"),
        (lambda f: (f / ".hydra" / "config.yaml").write_text("a: ${b}"), r"config\.yaml is damaged: .*b"),
        (lambda f: (f / "preprocessing.json").unlink(), r"preprocessing\.json does not exist"),
        (lambda f: (f / "preprocessing.json").write_text("{"), r"preprocessing\.json is damaged"),
        (lambda f: (f / "preprocessing.json").write_text('{"version": 9}'), r"version 9.*update effkit"),
        (lambda f: (shutil.rmtree(f / ".hydra"), shutil.rmtree(f / "checkpoints")), r"no record of its configuration"),
    ],
)
def test_what_is_no_run_is_explained_in_one_line(trained, tmp_path, break_it, message):
    folder = shutil.copytree(trained[1], tmp_path / "run")
    break_it(folder)
    with pytest.raises(UserError, match=message) as caught:
        Run.open(folder)
    assert "\n" not in str(caught.value)


def test_missing_weights_and_foreign_runs_are_explained(trained, tmp_path):
    folder = shutil.copytree(trained[1], tmp_path / "run")
    with pytest.raises(UserError, match=r"is a run of some_paper, not of other_paper"):
        Run.open(folder, package="other_paper")
    with pytest.raises(UserError, match=r"has no final weights yet: it has best, last"):
        Run.open(folder).weights("final")
    with pytest.raises(UserError, match=r"weights='worst' is not known"):
        Run.open(folder).weights("worst")
    (folder / "model.safetensors").touch()
    assert Run.open(folder).weights().name == "model.safetensors"
    (folder / "model.safetensors").unlink()
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(UserError, match=r"has no weights yet: its first epoch has not ended"):
        Run.open(folder).weights()


def test_words_that_contradict_a_run_are_refused(trained, tmp_path):
    _, folder, *_ = trained
    run = Run.open(folder)
    run.refuse({"data.root": "x", "batch_size": 3, "models": 1})
    for word in ("model", "model.pretrained", "experiment"):
        with pytest.raises(UserError, match=rf"says what {word} is: leave {word}=\.\.\. out"):
            run.refuse({word: "x"})
    for word in ("data.mean", "data.image_size"):
        with pytest.raises(UserError, match=rf"says what {word} is"):
            run.open_data({}, {word: 0.5})
    assert run.open_data({}, {"data.batch_size": 2}).batch_size == 2
    elsewhere = write_image_folder(tmp_path / "new", classes=("ant", "bee", "cow"), count=2)
    moved = run.open_data(words(elsewhere, image_size=99), {"data": "imagefolder", "data.root": str(elsewhere)})
    assert (len(moved.split("test")), moved.preprocessing) == (6, run.preprocessing)
    for other in (create_data("digits").name, "photos"):
        with pytest.raises(UserError, match=r"trained on other classes than those of data="):
            run.open_data({"name": other}, {"data": other})


def test_words_given_are_told_from_defaults(tmp_path):
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig

    assert given_words() == {}
    (tmp_path / "predict.yaml").write_text("run: null\ntopk: 5\nmodel: {name: tiny, depth: 1}\ndata: {root: null}\n")
    overrides = ["run=a/b", "data.root='with space'", "++topk=3", "~model.depth"]
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        composed = compose("predict", overrides=overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(composed)
    try:
        given = given_words()
    finally:
        HydraConfig.instance().cfg = None
    assert given == {"run": "a/b", "data.root": "with space", "topk": 3, "model.depth": None}


def test_preprocessing_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    save_preprocessing(tmp_path, Preprocessing(8))
    before = (tmp_path / "preprocessing.json").read_bytes()
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError("no space left on device")))
    with pytest.raises(OSError, match="no space"):
        save_preprocessing(tmp_path, Preprocessing(9))
    assert [p.name for p in tmp_path.iterdir()] == ["preprocessing.json"]
    assert (tmp_path / "preprocessing.json").read_bytes() == before


def test_going_on_with_other_pictures_is_refused(trained, tmp_path):
    root, folder, *_ = trained
    copy = shutil.copytree(folder, tmp_path / "run")
    with pytest.raises(
        UserError, match=r"resume: the preprocessing's mean was \(0\.485, .* and is \(0\.5, 0\.5, 0\.5\)"
    ):
        train(config(words(root), resume=str(copy)), network(), create_data(**words(root, mean=0.5)), folder=copy)


def test_left_out_pictures_stand_in_the_metrics(trained, tmp_path):
    root = shutil.copytree(trained[0], tmp_path / "pictures")
    (root / "train" / "ant" / "0.png").write_bytes(b"broken")
    metrics = train(config({}), network(), create_data(**words(root, skip_unreadable=True)), folder=tmp_path / "run")
    assert list(metrics["unreadable"]) == [str(root / "train" / "ant" / "0.png")]
    assert "is not a picture" in json.loads((tmp_path / "run" / "metrics.json").read_text())["unreadable"].popitem()[1]


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed", "bf16-true"])
def test_bytes_become_the_networks_precision(trained, tmp_path, precision):
    root, *_ = trained
    trainer = {**config({})["trainer"], "precision": precision}
    metrics = train(config({}, trainer=trainer), network(), create_data(**words(root)), folder=tmp_path)
    assert metrics["final"]["train_loss"] > 0


def test_a_module_without_preprocessing_leaves_bytes_to_its_network():
    images = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    facts = Preprocessing(SIZE)
    with_it, without = Classifier(network(), 3, preprocessing=facts), Classifier(nn.Identity(), 3)
    assert torch.equal(without(images), images)
    assert torch.equal(with_it(images), with_it(facts.normalize(images)))
