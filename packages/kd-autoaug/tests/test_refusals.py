"""What the commands refuse, before they begin: values of another kind or range, and outputs that cannot be written."""

import pytest
from PIL import Image

from effkit.testing import assert_one_line_mistake, in_process
from kd_autoaug.cli import main


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return in_process(main, tmp_path, monkeypatch, capfd)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["preview", "magnitudes=5"], ["magnitudes=5", "list of numbers"]),
        (["preview", "size=abc"], ["size='abc'", "whole number"]),
        (["preview", "views=null"], ["views=null", "whole number"]),
        (["preview", "extrapolate=5"], ["extrapolate=5", "true or false"]),
        (["preview", "operators=rotate"], ["operators='rotate'", "list"]),
        (["preview", "policy.n=abc"], ["policy.n='abc'"]),
        (["preview", "policy.ops=5"], ["policy.ops=5"]),
        (["preview", "policy.weights=abc"], ["policy.weights='abc'", "list of numbers"]),
        (["preview", "policy.interpolation=1.5"], ["policy.interpolation=1.5"]),
        (["summary", "networks=abc"], ["networks='abc'", "list"]),
        (["summary", "num_classes=abc"], ["num_classes='abc'", "whole number"]),
        (["bench", "csv=/proc/x.csv"], ["csv='/proc/x.csv'"]),
        (["bench", "providers=5"], ["providers=5", "list"]),
        (["bench", "n=abc"], ["n='abc'", "whole number"]),
        (["bench", "min_rounds=1.5"], ["min_rounds=1.5", "whole number"]),
        (["bench", "step", "k=null"], ["k=null", "whole number"]),
        (["eval", "run=0"], ["run=0", "path"]),
        (["eval", "model.weights="], ["model.weights= is empty"]),
        (["train", "policy_until=abc"], ["policy_until='abc'"]),
        (["train", "view.cutout=[1]"], ["view.cutout=[1]", "whole number"]),
        (["train", "view.hflip=2"], ["view.hflip=2"]),
        (["train", "view.cutout_fill=red"], ["view.cutout_fill='red'"]),
        (["distill", "teacher.pretrained=abc"], ["teacher.pretrained=", "true or false"]),
        (["distill", "teacher.mean=[a]"], ["teacher.mean=['a']"]),
        (["cache", "build", "cache.path=/proc/c"], ["cache.path='/proc/c'"]),
        (["cache", "build", "cache.path=c", "begin=abc"], ["begin='abc'", "whole number"]),
        (["cache", "info", "cache.path="], ["cache.path= is empty"]),
        (["analyze", "draws=abc"], ["draws='abc'", "whole number"]),
        (["analyze", "probe=5"], ["probe=5", "true or false"]),
        (["suggest", "budget=abc"], ["budget='abc'", "number"]),
        (["suggest", "use_upper=2"], ["use_upper=2", "true or false"]),
        (["suggest", "analysis="], ["analysis= is empty"]),
    ],
    ids=lambda w: " ".join(w),
)
def test_refused_in_one_line_that_names_the_key(run, words, said):
    assert_one_line_mistake("kd-autoaug", run(*words), said)


def test_a_bad_picture_does_not_stop_the_others(run, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.linear_gradient("L").resize((40, 40)).save(folder / "a.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:45])
    words = ["operators=[rotate]", "magnitudes=[2]", "policy=none"]
    code, out, err = run("preview", folder, *words)
    assert code == 1, err
    assert "1 of 2 pictures cannot be read" in out
    assert "b.png" in out
    assert [path.name for path in (tmp_path / "runs").rglob("*.png")] == ["operators_a.png"]
    (folder / "a.png").unlink()
    assert_one_line_mistake("kd-autoaug", run("preview", folder, *words), ["b.png"])
