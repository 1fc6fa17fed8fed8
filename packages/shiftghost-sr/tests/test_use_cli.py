"""Commands of use: what they write, what they say, how they fail."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from effkit.plots import read_description
from effkit.testing import assert_one_line_mistake, in_process
from shiftghost_sr.cli import main
from shiftghost_sr.models.files import load_model, save_model
from shiftghost_sr.models.zoo import create_model

TINY = [
    *("model=vdsr", "size.layers=3", "size.features=4"),
    *("data=folder", "data.root=tiny", "data.val_root=tiny", "data.num_workers=0", "data.patch=16", "data.crops=8"),
    *("data.batch_size=4", "trainer=cpu", "threads=1"),
]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return in_process(main, tmp_path, monkeypatch, capfd)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A dense network and one with ghosts."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    for name, ghost in (("dense", None), ("ghost", "default")):
        save_model(create_model("vdsr", 2, ghost=ghost, layers=4, features=4), folder / f"{name}.safetensors")
    return folder


def photo(path, size=(12, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)).save(path)


def test_train_finetune_evaluate_upscale(run, tmp_path):
    """The way of a network: dense, with ghosts, measured, used; by its run folders."""
    photo(tmp_path / "tiny" / "a.png", (40, 36))
    code, _, err = run("train", *TINY, "trainer.max_epochs=2", "hydra.run.dir=dense")
    assert code == 0, err
    assert (tmp_path / "dense" / "model.safetensors").is_file()
    words = ["model=dense/model.safetensors", "ghost=official", "teacher=parent", *TINY[3:], "trainer.max_epochs=1"]
    code, out, err = run("finetune", *words, "hydra.run.dir=ghost", "format=json")
    assert code == 0, err
    found = json.loads(out)
    assert {"train_distance", "val_psnr", "shift_entropy"} <= set(found["data"]["final"])
    assert any("converted to ghosts" in line for line in found["lines"])
    ghost = load_model(tmp_path / "ghost" / "model.safetensors")
    assert ghost.identity.ghost.estimator == "official"
    means = {}
    for which in ("final", "last", "best"):
        words = [f"weights={which}", "data=benchmark", "data.root=tiny", "threads=1", "format=json"]
        code, out, err = run("evaluate", "run=ghost", *words)
        assert code == 0, err
        means[which] = json.loads(out)["data"]["means"]
        assert abs(means[which]["PSNR"] - means[which]["cubic PSNR"]) < 3
    assert means["final"]["PSNR"] == means["last"]["PSNR"] == means["best"]["PSNR"]
    photo(tmp_path / "in" / "a.png")
    code, out, err = run("upscale", "in", "out", "run=dense", "threads=1")
    assert code == 0, err
    assert "1 written" in out
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert image.size == (20, 24)


def test_a_broken_picture_is_reported_at_the_end(run, tmp_path, weights):
    for name in ("a.png", "b.png"):
        photo(tmp_path / "in" / name)
    (tmp_path / "in" / "b.png").write_text("no picture")
    code, out, _ = run("upscale", "in", "out", f"model={weights / 'ghost.safetensors'}", "threads=1")
    assert code == 1
    assert "Not enlarged" in out
    assert "1 written, 1 failed" in out
    code, out, _ = run("upscale", "in", "out", f"model={weights / 'ghost.safetensors'}", "threads=1", "format=json")
    assert code == 1
    assert [p["state"] for p in json.loads(out)["data"]["pictures"]] == ["finished before", "failed"]


@pytest.mark.parametrize(
    ("what", "models", "words"),
    [
        ("rose", ["ghost"], []),
        ("similarity", ["dense"], ["layer=output"]),
        ("before_after", ["dense", "ghost"], ["side=40"]),
        ("errors", ["dense"], ["names=[ours]", "picture=chelsea"]),
        ("latency", ["dense", "ghost"], ["rounds=1"]),
        ("gains", ["dense", "ghost"], []),
    ],
)
def test_plots(run, tmp_path, weights, what, models, words):
    files = ",".join(str(weights / f"{name}.safetensors") for name in models)
    code, _, err = run("plot", f"what={what}", f"models=[{files}]", "out=picture.png", "threads=1", *words)
    assert code == 0, err
    assert read_description(tmp_path / "picture.png").endswith(".")
    with Image.open(tmp_path / "picture.png") as image:
        assert image.getbbox() is not None


def test_cubic_interpolation_alone(run):
    code, out, _ = run("evaluate", "scale=4", "protocol=div2k", "data.limit=1", "format=json")
    assert code == 0
    assert set(json.loads(out)["data"]["means"]) == {"cubic PSNR", "cubic SSIM"}
    code, out, _ = run("evaluate", "scale=2", "data.limit=1", "format=json")
    assert json.loads(out)["data"]["means"]["cubic PSNR"] == pytest.approx(31.7073, abs=5.1e-5)


MISTAKES = {
    "no scale": (["evaluate"], "scale is not set"),
    "no model": (["upscale", "a", "b"], "run=RUN"),
    "two models": (["upscale", "a", "b", "run=x", "model=y"], "either run=RUN"),
    "no such model": (["upscale", "a", "b", "model=nothing.safetensors"], "'nothing.safetensors' does not exist"),
    "one path": (["upscale", "a", "model=GHOST"], "last where to"),
    "no such picture": (["upscale", "nothing.png", "out", "model=GHOST"], "does not exist"),
    "quality": (["upscale", "china", "out", "model=GHOST", "quality=0"], "quality=0"),
    "tile": (["upscale", "china", "out", "model=GHOST", "tile=0"], "tile=0"),
    "no such run": (["evaluate", "run=nothing"], "run='nothing'"),
    "split": (["evaluate", "scale=2", "split=train"], "split='train'"),
    "no such network": (["train", "model=srcnn"], "model='srcnn'"),
    "size": (["train", "size.blocks=0"], "size.blocks=0"),
    "loss": (["train", "loss=l3", *TINY], "loss='l3'"),
    "patch": (["train", "data.patch=15", *[w for w in TINY if "patch" not in w]], "data.patch=15"),
    "a word for a number": (["train", "data.crops=many"], "data.crops='many'"),
    "no root": (["train", "data=div2k"], "data.root is not set"),
    "parent of nothing": (["finetune", "model=GHOST", "teacher=parent"], "teacher=parent"),
    "ghosts again": (["finetune", "model=GHOST", "ghost=default"], "has ghosts already"),
    "no shifts": (["plot", "models=[DENSE]"], "has no shifts"),
    "what": (["plot", "what=flower", "models=[DENSE]"], "what='flower'"),
    "names": (["plot", "models=[DENSE]", "names=[a,b]"], "names="),
    "out": (["plot", "models=[DENSE]", "out=x.jpg"], "out='x.jpg'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(run, weights, name):
    words, expected = MISTAKES[name]
    files = {"GHOST": str(weights / "ghost.safetensors"), "DENSE": str(weights / "dense.safetensors")}
    given = []
    for word in words:
        for key, file in files.items():
            word = word.replace(key, file)
        given.append(word)
    assert_one_line_mistake("shiftghost-sr", run(*given), [expected])
