"""Folders of pictures: what people who run upscalers over many files have met elsewhere."""

import json
import os
import time

import numpy as np
import pytest
import torch
from PIL import Image

from effkit.errors import UserError
from effkit.executors import Choice
from shiftghost_sr.inference.journal import FILE
from shiftghost_sr.inference.many import Options, upscale_files
from shiftghost_sr.inference.plan import plan_errands
from shiftghost_sr.models.files import save_model
from shiftghost_sr.models.zoo import create_model


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = create_model("edsr_baseline", 2, ghost="default", blocks=1, features=4)
    return str(save_model(model, tmp_path_factory.mktemp("model") / "model.safetensors"))


def save(path, size=(6, 5), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"RGB": 3, "L": 1, "RGBA": 4}[mode]
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (*size, channels)).astype(np.uint8)
    Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels).save(path, **options)
    return path


def go(weights, sources, out, choice=None, replace_files=False, **options):
    plan = {key: options.pop(key) for key in ("name", "suffix") if key in options}
    errands, folder = plan_errands(sources, out, scale=2, **plan)
    return upscale_files(errands, folder, Options(weights, **options), choice, replace_files=replace_files)


def states(outcomes):
    return [outcome.state for outcome in outcomes]


def test_a_folder_with_every_kind_of_picture(tmp_path, weights):
    save(tmp_path / "in" / "a.b.jpg")
    save(tmp_path / "in" / "grey.png", mode="L")
    save(tmp_path / "in" / "höhe 山.png", mode="RGBA")
    save(tmp_path / "in" / "one.png", size=(1, 1))
    save(tmp_path / "in" / "upper.PNG")
    outcomes = go(weights, [tmp_path / "in"], tmp_path / "in" / "out")
    assert states(outcomes) == ["written"] * 5
    sizes = {}
    for name in os.listdir(tmp_path / "in" / "out"):
        if name != FILE:
            with Image.open(tmp_path / "in" / "out" / name) as image:
                sizes[name] = image.size, image.mode
    assert sizes == {
        "a.b.jpg": ((10, 12), "RGB"), "grey.png": ((10, 12), "L"), "höhe 山.png": ((10, 12), "RGBA"),
        "one.png": ((2, 2), "RGB"), "upper.PNG": ((10, 12), "RGB"),
    }  # fmt: skip
    assert states(go(weights, [tmp_path / "in"], tmp_path / "in" / "out")) == ["finished before"] * 5


def test_one_broken_file_stops_no_other(tmp_path, weights):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "in" / name)
    (tmp_path / "in" / "b.png").write_bytes((tmp_path / "in" / "b.png").read_bytes()[:60])
    outcomes = go(weights, [tmp_path / "in"], tmp_path / "out")
    assert states(outcomes) == ["written", "failed", "written"]
    assert "b.png" in outcomes[1].why
    assert "\n" not in outcomes[1].why
    assert sorted(os.listdir(tmp_path / "out")) == [FILE, "a.png", "c.png"]
    save(tmp_path / "in" / "b.png")  # mended: only this one is left to do
    assert states(go(weights, [tmp_path / "in"], tmp_path / "out")) == ["finished before", "written", "finished before"]


def test_what_is_finished_depends_on_source_model_and_options(tmp_path, weights):
    source, out = save(tmp_path / "a.png"), tmp_path / "out"
    assert states(go(weights, [source], out)) == ["written"]
    first = (out / "a.png").read_bytes()
    assert states(go(weights, [source], out, tile=3)) == ["finished before"]  # tiles leave no trace
    assert states(go(weights, [source], out, ensemble=True)) == ["written"]
    assert (out / "a.png").read_bytes() != first
    torch.manual_seed(1)
    other = save_model(create_model("edsr_baseline", 2, blocks=1, features=4), tmp_path / "other.safetensors")
    assert states(go(str(other), [source], out)) == ["written"]
    assert states(go(str(other), [source], out)) == ["finished before"]
    save(source, size=(7, 5))
    os.utime(source, (time.time() + 5,) * 2)
    assert states(go(str(other), [source], out)) == ["written"]
    os.truncate(out / "a.png", 10)
    assert states(go(str(other), [source], out)) == ["written"]
    (out / "a.png").unlink()
    assert states(go(str(other), [source], out)) == ["written"]


def test_somebodys_file_is_not_written_over(tmp_path, weights):
    source, mine = save(tmp_path / "a.png"), tmp_path / "out" / "a.png"
    save(mine, size=(3, 3))
    before = mine.read_bytes()
    with pytest.raises(UserError, match="replace=true writes over it"):
        go(weights, [source], tmp_path / "out")
    with pytest.raises(UserError, match="replace=true"):
        go(weights, [source], mine)
    assert mine.read_bytes() == before
    assert os.listdir(tmp_path / "out") == ["a.png"]
    assert states(go(weights, [source], mine, replace_files=True)) == ["written"]


def test_a_killed_run_goes_on(tmp_path, weights):
    """It had claimed its targets, and written one of them without a line about it; the last line is cut off."""
    sources, out = [save(tmp_path / n) for n in ("a.png", "b.png")], tmp_path / "out"
    go(weights, sources, out)
    lines = (out / FILE).read_text().splitlines()
    claims = [line for line in lines if "bytes" not in line]
    assert len(claims) == 2
    (out / FILE).write_text("\n".join(claims) + '\n{"target": "a.p')
    assert states(go(weights, sources, out)) == ["written", "written"]
    assert states(go(weights, sources, out)) == ["finished before"] * 2
    assert all(json.loads(line) for line in (out / FILE).read_text().splitlines() if not line.endswith("a.p"))


@pytest.mark.slow
def test_workers_write_what_one_process_writes(tmp_path, weights):
    for name in ("a.png", "b.png", "broken.png", "c.png"):
        save(tmp_path / "in" / name)
    (tmp_path / "in" / "broken.png").write_text("no picture")
    one = go(weights, [tmp_path / "in"], tmp_path / "one")
    two = go(weights, [tmp_path / "in"], tmp_path / "two", Choice("process", workers=2))
    assert states(one) == states(two) == ["written", "written", "failed", "written"]
    for name in ("a.png", "b.png", "c.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_same_stem_with_two_endings(tmp_path, weights):
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "a.jpg")
    assert states(go(weights, [tmp_path / "in"], tmp_path / "out")) == ["written"] * 2  # endings are kept
    with pytest.raises(UserError, match=r"would both be written.*name='\{stem\}_\{ext\}'"):
        go(weights, [tmp_path / "in"], tmp_path / "png", suffix=".png")
    assert not (tmp_path / "png").exists()
    go(weights, [tmp_path / "in"], tmp_path / "png", suffix=".png", name="{stem}_{ext}_x{scale}")
    assert sorted(os.listdir(tmp_path / "png")) == [FILE, "a_jpg_x2.png", "a_png_x2.png"]
    with pytest.raises(UserError, match="would both be written"):
        plan_errands([tmp_path / "in", save(tmp_path / "more" / "a.png")], tmp_path / "x", scale=2)


def test_inputs_are_never_written_over(tmp_path):
    source = save(tmp_path / "in" / "a.png")
    for out in (tmp_path / "in", source):
        with pytest.raises(UserError, match="would be overwritten"):
            plan_errands([source], out, scale=2)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(UserError, match="would be overwritten"):
        plan_errands([tmp_path / "in"], tmp_path / "link", scale=2)
    errands, _ = plan_errands([tmp_path / "in"], tmp_path / "in", scale=2, name="{stem}_x{scale}")
    assert errands[0].target.name == "a_x2.png"


def test_where_to(tmp_path):
    source = save(tmp_path / "a.png")
    assert plan_errands([source], tmp_path / "b.jpg", scale=2)[0][0].target == tmp_path / "b.jpg"
    assert plan_errands([source], tmp_path / "folder", scale=2)[0][0].target == tmp_path / "folder" / "a.png"
    assert plan_errands(["china"], tmp_path / "folder", scale=2)[0][0].target.name == "china.png"
    save(tmp_path / "in" / "x.gif", mode="L")
    assert plan_errands([tmp_path / "in"], tmp_path / "o.jpg", scale=2)[0][0].target == tmp_path / "o.jpg" / "x.png"


def test_an_output_that_cannot_be_written_is_told_before_the_work(tmp_path):
    source = save(tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    for out, words in [(tmp_path / "file" / "x", "is no folder"), (tmp_path / "file", "is a file"),
                       (tmp_path / "file" / "x.png", "cannot be written"), ("", "out= is empty")]:  # fmt: skip
        with pytest.raises(UserError, match=words):
            plan_errands([source], out, scale=2)


def test_a_format_that_cannot_hold_it_fails_that_picture_alone(tmp_path, weights):
    save(tmp_path / "in" / "a.png", mode="RGBA")
    save(tmp_path / "in" / "b.png")
    outcomes = go(weights, [tmp_path / "in"], tmp_path / "out", suffix=".jpg")
    assert states(outcomes) == ["failed", "written"]
    assert "holds no transparency" in outcomes[0].why
    assert not (tmp_path / "out" / "a.jpg").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"suffix": ".xyz"}, "suffix='.xyz'"),
        ({"name": "{stem}{}"}, "in braces"),
        ({"name": "{date}"}, "date"),
        ({"name": "x"}, "needs {stem}"),
        ({"name": "a/{stem}"}, "must be the name of a file"),
        ({"name": "{stem"}, "cannot be used"),
    ],
)
def test_mistakes(tmp_path, options, words):
    with pytest.raises(UserError, match=words.replace("{", r"\{")):
        plan_errands([save(tmp_path / "a.png")], tmp_path / "out", scale=2, **options)
