"""What the commands refuse, before they begin: values of another kind or range, and outputs that cannot be written."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import tnt_vit
from effkit.testing import assert_one_line_mistake, in_process
from tnt_vit.cli import main

SMALL = ["model=tnt_digits", "model.depth=2", "threads=1"]
CLASSES = [*SMALL, "model.num_classes=10"]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return in_process(main, tmp_path, monkeypatch, capfd)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["visualize", "china", "sentence=5"], ["sentence=5", "[row, column]", "0..3"]),
        (["visualize", "china", "sentence=[0,9]"], ["sentence=[0, 9]", "0..3"]),
        (["visualize", "china", "sentence={a: 1}"], ["sentence", "[row, column]"]),
        (["visualize", "china", "word=''"], ["word=''", "[row, column]"]),
        (["visualize", "china", "blocks=2"], ["blocks=2", "list of whole numbers"]),
        (["visualize", "china", "blocks=[7]"], ["blocks=[7]", "1..2"]),
        (["visualize", "china", "figures=null"], ["figures=null"]),
        (["visualize", "china", "feature_size=33"], ["feature_size=33", "multiple of model.patch_size=8"]),
        (["visualize", "images=5"], ["images=5", "list of words"]),
        (["visualize", "images=''"], ["images", "empty"]),
        (["visualize", "china", "run="], ["run= is empty"]),
        (["visualize", "china", "run=0"], ["run=0", "path"]),
        (["predict", "china", "topk=null"], ["topk=null", "whole number"]),
        (["predict", "china", "class_names=5"], ["class_names=5"]),
        (["predict", "china", "crop_pct=2"], ["crop_pct=2", "at most 1"]),
        (["predict", "china", "exported="], ["exported= is empty"]),
        (["predict", "china", "overwrite=maybe"], ["overwrite=", "true or false"]),
        (["predict", "china", "model.drop_rate=abc"], ["model.drop_rate='abc'", "number"]),
        (["predict", "china", "model.pretrained="], ["model.pretrained= is empty"]),
        (["predict", "china", "model.num_heads=5"], ["model.num_heads=5"]),
        (["export", "to=tflite"], ["to='tflite'", "onnx, torch_export"]),
        (["export", "to=torch_export", "optimize=abc"], ["optimize=", "true or false"]),
        (["export", "to=torch_export", "check=2"], ["check=2", "true or false"]),
        (["export", "to=torch_export", "opset=18"], ["opset=18", "to=onnx"]),
        (["export", "to=torch_export", "out=/proc/x.pt2"], ["out='/proc/x.pt2'", "no file can be made in '/proc'"]),
        (["export", "to=torch_export", "out=x.onnx"], ["out='x.onnx'", ".pt2"]),
        (["export", "to=torch_export", "out="], ["out= is empty"]),
        (["export", "to=torch_export", "out=[5]"], ["out=", "must be a path"]),
        (["convert", "src=x.pth", "dst=5"], ["dst=5", "path"]),
        (["convert", "src=5", "dst=x.pth"], ["src=5"]),
        (["convert", "src=x.pth", "dst=x.pth", "variant=[a]"], ["variant=['a']"]),
        (["convert", "src=x.pth", "dst=x.pth", "patch_size=0"], ["patch_size=0"]),
        (["convert", "src=x.pth", "dst=/proc/x.pth"], ["dst='/proc/x.pth'"]),
        (["bench", "csv=/proc/x.csv"], ["csv='/proc/x.csv'"]),
        (["bench", "csv=[1]"], ["csv=[1]"]),
        (["bench", "compile=2"], ["compile=2", "true or false"]),
        (["bench", "compile_mode=fast"], ["compile_mode='fast'", "max-autotune"]),
        (["bench", "min_seconds=abc"], ["min_seconds='abc'", "number"]),
        (["bench", "providers=ours"], ["providers='ours'", "list"]),
        (["summary", "layers_of=[tnt_s]"], ["layers_of", "text"]),
        (["reproduce", "table=1.5"], ["table=1.5"]),
        (["reproduce", "claim=abc"], ["claim=", "true or false"]),
        (["train", "data.drop_last=5"], ["data.drop_last=5", "true or false"]),
        (["train", "data.limit=abc"], ["data.limit='abc'"]),
        (["train", "trainer.devices={a: 1}"], ["trainer.devices"]),
        (["train", "scheduler.warmup_epochs=abc"], ["scheduler.warmup_epochs='abc'"]),
        (["train", "mixup.prob=abc"], ["mixup.prob='abc'", "number"]),
        (["train", "mixup.prob=2"], ["mixup.prob=2", "[0, 1]"]),
        (["train", "ema=abc"], ["ema='abc'", "decay in (0, 1)"]),
        (["train", "label_smoothing=[1]"], ["label_smoothing=[1]"]),
        (["train", "resume=5"], ["resume=5"]),
        (["train", "model.num_classes=5"], ["model.num_classes=5", "10 classes", "leave"]),
    ],
    ids=lambda w: " ".join(w),
)
def test_refused_in_one_line_that_names_the_key(run, words, said):
    small = {"convert": [], "summary": [], "reproduce": [], "train": ["trainer=cpu", *SMALL]}.get(words[0], CLASSES)
    if words[0] == "train" or words[0] == "bench":
        small = [word for word in small if "num_classes" not in word]
    assert_one_line_mistake("tnt-vit", run(words[0], *small, *words[1:]), said)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Weights of ten classes, without a word on how pictures were prepared."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "ten.safetensors"
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "inner_dim": 12, "depth": 2, "num_heads": 3}
    save_file(tnt_vit.TNT(**sizes, inner_num_heads=2, num_classes=10).state_dict(), path)
    return path


def test_classes_of_weights_and_data(run, weights):
    given = f"model.pretrained={weights}"
    said = [f"model.pretrained={str(weights)!r}", "10 classes", "data=photos has 2", "tnt-vit train model.pretrained="]
    assert_one_line_mistake("tnt-vit", run("eval", *SMALL, given, "data=photos", "data.image_size=32"), said)
    said = ["model.num_classes=7", "10 classes", "leave model.num_classes out"]
    assert_one_line_mistake("tnt-vit", run("predict", "china", *SMALL, given, "model.num_classes=7"), said)
    code, out, err = run("predict", "china", *SMALL, given, "format=json")  # the weights say how many there are
    assert code == 0, err
    assert '"random_weights": false' in out


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Two pictures, one in between that ends too early, and one that is text."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a", "c"):
        Image.linear_gradient("L").resize((40, 40)).save(folder / f"{name}.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:45])
    (folder / "d.png").write_text("no picture")
    return folder


@pytest.mark.parametrize("command", ["predict", "visualize"])
def test_a_bad_picture_does_not_stop_the_others(run, pictures, command):
    more = ["figures=word_maps"] if command == "visualize" else ["batch_size=1"]
    code, out, err = run(command, pictures, *CLASSES, *more)
    assert code == 1, err
    assert "2 of 4 pictures cannot be read" in out
    assert "b.png" in out
    assert "d.png" in out
    done = [path.name for path in pictures.parent.glob("runs/**/*.png")]
    assert command == "predict" or sorted(done) == ["a_word_maps.png", "c_word_maps.png"]
    for name in ("a", "c"):
        (pictures / f"{name}.png").unlink()
    said = ["b.png", "none of the 2 pictures can be read"]
    assert_one_line_mistake("tnt-vit", run(command, pictures, *CLASSES, *more), said)


HEADS = ["num_heads=3", "inner_num_heads=2", "patch_size=8"]
QUICK = ["providers=[ours_module]", "batch_sizes=[1]", "min_rounds=1", "min_seconds=0.01"]


def interrupt(first=None, *_args, **_kwargs):
    if "status.json" not in str(first):  # which is written by the same function
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("tnt_vit.inference.export.run_torch_export", ["export", *CLASSES, "to=torch_export", "out=new/m.pt2"]),
        ("tnt_vit.checkpoints.weights.write_state", ["convert", *HEADS, "src=WEIGHTS", "dst=new/m.safetensors"]),
        ("effkit.atomic._to_disk", ["convert", *HEADS, "src=WEIGHTS", "dst=new/m.pth"]),
        ("effkit.atomic._to_disk", ["visualize", "china", *CLASSES, "figures=word_maps", "hydra.run.dir=new"]),
        ("tnt_vit.commands.predict.probabilities", ["predict", "china", *CLASSES, "hydra.run.dir=new"]),
        ("effkit.bench.bench.append_csv", ["bench", *SMALL, *QUICK, "csv=new/m.csv"]),
    ],
    ids=lambda w: w if isinstance(w, str) else w[0],
)
def test_interrupted_commands_leave_no_file_under_the_final_name(run, tmp_path, monkeypatch, weights, where, words):
    words = [word.replace("WEIGHTS", str(weights)) for word in words]
    monkeypatch.setattr(where, interrupt)
    code, _, err = run(*words)
    assert code == 130, err
    left = [path.name for path in (tmp_path / "new").rglob("*") if path.is_file()]
    assert [name for name in left if name.startswith("m.") or name.endswith((".png", ".tmp", ".pt2"))] == []
