"""A run says everything: evaluated, predicted and exported, its network sees pictures as it did in training."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

from effkit.data import Preprocessing
from effkit.data.facts import FACTS
from effkit.lightning import Classifier
from effkit.runs import load_preprocessing, preprocessing_of
from effkit.testing import assert_one_line_mistake, in_process, write_image_folder
from tnt_vit.cli import main
from tnt_vit.commands.build import build_data_and_model
from tnt_vit.commands.evaluate import open_both
from tnt_vit.commands.known import earlier
from tnt_vit.commands.opened import open_run

CLASSES = ("ant", "bee", "cow")
NO_ONNX = [n for n in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(n) is None]
FORMATS = [
    pytest.param("onnx", ".onnx", marks=pytest.mark.skipif(bool(NO_ONNX), reason=f"not installed: {NO_ONNX}")),
    ("torch_export", ".pt2"),
]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return in_process(main, tmp_path, monkeypatch, capfd)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """36 pictures to be told apart by a network that has learnt little, so that constants matter."""
    return write_image_folder(tmp_path_factory.mktemp("pictures"), classes=CLASSES, count=12, size=(40, 52))


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory) -> Path:
    """The run of ``train data=imagefolder`` with ``mean: null``."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    words = ["model=tnt_digits", "model.depth=1", "data=imagefolder", f"data.root={pictures}", "data.image_size=32"]
    words += ["data.mean=null", "data.std=null", "data.num_workers=0", "data.batch_size=12", "data.augment=none"]
    words += ["threads=1", "trainer=cpu", "trainer.max_epochs=2", "scheduler=none", f"hydra.run.dir={folder}"]
    assert main(["train", *words]) == 0
    return folder


def classes_of(out: str) -> list[int]:
    return [picture["top"][0]["class"] for picture in json.loads(out)["data"]["pictures"]]


def evaluated(data, model) -> torch.Tensor:
    """Logits of the test pictures as ``eval`` computes them."""
    module = Classifier(model, data.num_classes, preprocessing=data.preprocessing).eval()
    with torch.no_grad():
        return torch.cat([module(images) for images, _ in data.test_dataloader()])


def test_trained_evaluated_and_predicted_with_the_same_constants(run, pictures, trained):
    """With ``mean: null``, ``eval`` took 0.5 and ``predict`` ImageNet's constants: 7 of 36 pictures changed class."""
    kept = load_preprocessing(trained)
    assert (kept.mean, kept.std) == (FACTS["imagefolder"].mean, FACTS["imagefolder"].std)
    assert preprocessing_of(trained / "model.safetensors") == kept
    opened = open_run(str(trained))
    data = opened.run.open_data({}, {})
    logits = evaluated(data, opened.model)
    folders = [str(pictures / "val" / name) for name in CLASSES]

    code, out, err = run("predict", *folders, f"run={trained}", "format=json")
    assert code == 0, err
    predicted = classes_of(out)
    assert len(predicted) == 36
    assert predicted == logits.argmax(1).tolist()
    names = {top["name"] for picture in json.loads(out)["data"]["pictures"] for top in picture["top"]}
    assert names == set(CLASSES)

    labels = torch.arange(3).repeat_interleave(12)
    right = 100 * float((logits.argmax(1) == labels).float().mean())
    code, out, err = run("eval", f"run={trained}", "threads=1", "format=json")
    assert code == 0, err
    found = json.loads(out)["data"]
    assert (found["images"], found["test_top1"]) == (36, pytest.approx(right, abs=1e-4))
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["final"]["val_top1"] == pytest.approx(right, abs=1e-4)

    # The constants matter for these pictures, so a wrong one would be seen.
    data.use(Preprocessing(32, 0.875, class_names=CLASSES))
    assert (evaluated(data, opened.model) - logits).abs().max() > 1e-3


def test_a_file_of_the_runs_weights_says_it_too(run, pictures, trained, tmp_path):
    folders = [str(pictures / "val" / name) for name in CLASSES]
    opened = open_run(str(trained))
    want = evaluated(opened.run.open_data({}, {}), opened.model).argmax(1).tolist()
    alone = shutil.copy(trained / "model.safetensors", tmp_path / "alone.safetensors")
    code, _, err = run("convert", f"src={trained / 'checkpoints' / 'last.ckpt'}", "dst=again.safetensors")
    assert code == 0, err
    for weights in (alone, tmp_path / "again.safetensors", trained / "checkpoints" / "last.ckpt"):
        model = ["model=tnt_digits", "model.depth=1", "model.num_classes=3", f"model.pretrained={weights}"]
        code, out, err = run("predict", *folders, *model, "format=json")
        assert code == 0, err
        assert classes_of(out) == want
    words = ["data=imagefolder", f"data.root={pictures}", *model[:2], f"model.pretrained={alone}"]
    cfg = main.compose("eval", [*words, "data.num_workers=0"])
    data, network = build_data_and_model(cfg, fresh_head=False)
    assert data.preprocessing == load_preprocessing(trained)  # size, crop and constants, not those of the config
    assert evaluated(data, network).argmax(1).tolist() == want
    code, out, err = run("eval", *words, "data.mean=0.5", "data.num_workers=0", "format=json", "hydra.run.dir=asked")
    assert code == 0, err
    kept = load_preprocessing(tmp_path / "asked")
    assert (kept.mean, kept.std) == ((0.5,) * 3, FACTS["imagefolder"].std)  # a word asked for by name wins


@pytest.mark.parametrize(("to", "suffix"), FORMATS)
@pytest.mark.parametrize("batch", ["dynamic", pytest.param(5, marks=pytest.mark.slow)])
def test_exported_files_carry_it_and_are_read_back(run, pictures, trained, tmp_path, to, suffix, batch):
    code, out, err = run("export", f"run={trained}", f"to={to}", f"batch={batch}", f"out=model{suffix}", "format=json")
    assert code == 0, err
    assert json.loads(out)["data"]["preprocessing"]["mean"] == list(FACTS["imagefolder"].mean)
    opened = open_run(str(trained))
    want = evaluated(opened.run.open_data({}, {}), opened.model)
    folders = [str(pictures / "val" / name) for name in CLASSES]
    code, out, err = run("predict", *folders, f"exported=model{suffix}", "format=json")
    assert code == 0, err
    assert classes_of(out) == want.argmax(1).tolist()
    assert {t["name"] for p in json.loads(out)["data"]["pictures"] for t in p["top"]} == set(CLASSES)
    where = ["data=imagefolder", f"data.root={pictures}", "data.num_workers=0"]
    code, out, err = run("eval", f"exported=model{suffix}", *where, "format=json")
    assert code == 0, err
    labels = torch.arange(3).repeat_interleave(12)
    right = 100 * float((want.argmax(1) == labels).float().mean())
    assert json.loads(out)["data"]["test_top1"] == pytest.approx(right, abs=1e-4)


def test_other_weights_and_other_pictures_of_a_run(run, trained, tmp_path):
    elsewhere = write_image_folder(tmp_path / "new", classes=CLASSES, count=2)
    words = ["data=imagefolder", f"data.root={elsewhere}", "data.num_workers=0", "format=json"]
    code, out, err = run("eval", f"run={trained}", "weights=best", *words)
    assert code == 0, err
    assert json.loads(out)["data"]["images"] == 6
    code, out, err = run("visualize", "china", f"run={trained}", "figures=[class_attention]", "format=json")
    assert code == 0, err
    assert json.loads(out)["data"]["weights"] == "weights: model.safetensors"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "china", "run=RUN", "model=tnt_s"], ["run=", "model=... out"]),
        (["predict", "china", "run=RUN", "model.pretrained=x.pth"], ["run=", "model.pretrained=... out"]),
        (["eval", "run=RUN", "model.pretrained=x.pth"], ["model.pretrained"]),
        (["export", "run=RUN", "model=tnt_ti"], ["model=... out"]),
        (["eval", "run=RUN", "experiment=digits"], ["experiment"]),
        (["eval", "run=RUN", "data.mean=0.5"], ["data.mean"]),
        (["eval", "run=RUN", "data=photos"], ["other classes"]),
        (["predict", "china", "run=RUN", "crop_pct=0.5"], ["crop_pct"]),
        (["predict", "china", "run=RUN", "exported=x.onnx"], ["exported"]),
        (["predict", "china", "run=RUN", "weights=worst"], ["worst", "best"]),
        (["predict", "china", "weights=best"], ["weights='best'", "run=RUN"]),
        (["predict", "china", "run=nowhere"], ["nowhere", "does not exist"]),
        (["predict", "china", "exported=nowhere.onnx"], ["nowhere.onnx"]),
        (["predict", "china", "exported=nowhere.pth"], ["nowhere.pth", ".onnx", ".pt2"]),
        (["predict", "china", "exported=text.pt2"], ["text.pt2", "cannot be read"]),
        (["predict", "china", "exported=text.pt2", "model=tnt_s"], ["exported='text.pt2'", "model=... out"]),
    ],
    ids=lambda w: " ".join(w),
)
def test_contradictions_are_one_line(run, trained, tmp_path, words, said):
    (tmp_path / "text.pt2").write_text("no archive")
    words = [word.replace("=RUN", f"={trained}") for word in words]
    assert_one_line_mistake("tnt-vit", run(*words), said)


@pytest.mark.parametrize("data", [{"name": "imagefolder", "mean": None, "std": None}, {"name": "digits"}])
def test_runs_from_before_are_opened_as_they_were_trained(data):
    """Their training took 0.5 wherever the config had nothing."""
    found = earlier({**data, "image_size": 32})
    assert (found.mean, found.std, found.size) == ((0.5,) * 3, (0.5,) * 3, (32, 32))
    assert earlier({**data, "mean": 0.1, "std": 0.2}).mean == (0.1,) * 3


def test_an_old_run_folder_still_works(run, trained, pictures, tmp_path):
    old = shutil.copytree(trained, tmp_path / "old")
    (old / "preprocessing.json").unlink()
    shutil.rmtree(old / "checkpoints")
    from safetensors.torch import load_file, save_file

    save_file(load_file(old / "model.safetensors"), old / "model.safetensors", metadata={"format": "pt"})
    code, out, err = run("predict", str(pictures / "val" / "ant"), f"run={old}", "format=json")
    assert code == 0, err
    assert {t["name"] for p in json.loads(out)["data"]["pictures"] for t in p["top"]} == set(CLASSES)
    assert preprocessing_of(old / "model.safetensors", earlier).mean == (0.5,) * 3
    config = old / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("name: imagefolder", "name: mine"))
    assert_one_line_mistake("tnt-vit", run("eval", f"run={old}"), ["data.name", "mine", "imagefolder"])


def test_a_command_composed_without_a_command_line_opens_a_run_too(trained):
    cfg = main.compose("eval", [f"run={trained}", "data.num_workers=0"])
    data, opened = open_both(cfg)
    assert opened.weights == trained / "model.safetensors"
    assert data.preprocessing == load_preprocessing(trained)
