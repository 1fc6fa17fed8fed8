"""Previews: the pictures drawn are those the operators make; files, folders and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from effkit.plots import read_description
from kd_autoaug.analysis.photos import BUNDLED, load_photos
from kd_autoaug.analysis.views import operator_views
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.commands.preview import plot_policy, preview_report


@pytest.fixture(scope="module")
def cat() -> torch.Tensor:
    return load_photos(["chelsea"], 48)["chelsea"]


def pillow(picture: torch.Tensor) -> Image.Image:
    return Image.fromarray(picture.permute(1, 2, 0).numpy())


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_the_grid_holds_what_pillow_makes(cat) -> None:
    views = operator_views(cat, ["invert", "posterize", "solarize", "equalize"], [0, 5, 10], "tf_tpu")
    assert views.shape == (4, 3, 3, 48, 48)
    for column, (bits, threshold) in enumerate([(0, 0), (2, 128), (4, 256)]):
        assert torch.equal(views[0, column], tensor(ImageOps.invert(pillow(cat))))
        posterized = tensor(ImageOps.posterize(pillow(cat), bits)) if bits else torch.zeros_like(cat)
        assert torch.equal(views[1, column], posterized)
        assert torch.equal(views[2, column], tensor(ImageOps.solarize(pillow(cat), threshold)))
        assert torch.equal(views[3, column], tensor(ImageOps.equalize(pillow(cat))))


def test_one_row_has_one_sign(cat) -> None:
    """The same draw at every magnitude: a row shows one operator grow, not flicker between directions."""
    views = operator_views(cat, ["translate_x"] * 6, [0.2, 0.4, 0.8], "linear")
    left = (views[:, :, :, :, :4] == 0).flatten(2).all(-1)
    assert all(row.all() or not row.any() for row in left)
    assert len({bool(row[0]) for row in left}) == 2  # both directions among six rows


def test_pictures_are_squares_of_files_and_folders(tmp_path) -> None:
    Image.new("L", (30, 50), 77).save(tmp_path / "grey.png")
    Image.new("RGBA", (64, 20), (1, 2, 3, 255)).save(tmp_path / "wide.png")
    (tmp_path / "notes.txt").write_text("no picture")
    found = load_photos([tmp_path, tmp_path / "grey.png"], 16)
    assert list(found) == ["grey", "wide", "grey-2"]
    assert all(p.shape == (3, 16, 16) and p.dtype == torch.uint8 for p in found.values())
    assert set(found["grey"].unique().tolist()) == {77}
    assert set(load_photos(list(BUNDLED), 8)) == set(BUNDLED)


def test_what_is_no_picture_is_refused(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    for sources, words in (
        (["nowhere.png"], "nowhere.png.*does not exist.*chelsea"),
        ([tmp_path / "notes.txt"], "not a picture"),
        ([tmp_path / "empty"], "holds no pictures"),
        ([], "images is empty: give files, folders, .*china"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            load_photos(sources, 8)
    with pytest.raises(ValueError, match="size=0"):
        load_photos(["china"], 0)


def test_the_table_names_the_operators_that_were_drawn(cat, tmp_path) -> None:
    policy = Policy.from_name("randaugment(n=2,m=9,space=tf_tpu)")
    path, rows = plot_policy({"cat": cat, "again": cat}, policy, tmp_path / "p.png", views=3, seed=4)
    assert path.is_file()
    assert [r[:2] for r in rows] == [[n, v] for n in ("cat", "again") for v in range(3)]
    assert set(", ".join(r[2] for r in rows).split(", ")) <= {*policy.operators(), "identity"}
    assert rows == plot_policy({"cat": cat, "again": cat}, policy, tmp_path / "p.png", views=3, seed=4)[1]
    assert rows != plot_policy({"cat": cat, "again": cat}, policy, tmp_path / "p.png", views=3, seed=5)[1]


def test_report(tmp_path) -> None:
    report = preview_report(
        ["china"], tmp_path, policy=Policy.from_name("autoaugment-imagenet"), magnitudes=(2, 10), size=32, views=2
    )
    assert [f.name for f in report.files] == ["operators_china.png", "policy.png"]
    for file in report.files:
        with Image.open(file) as image:
            assert np.asarray(image.convert("RGB")).std() > 10
        assert file.stat().st_size < 300 * 1024
    grid, views = map(read_description, report.files)
    assert "one picture (china, 32 pixels, space tf_tpu)" in grid
    assert "a column for each magnitude (2 and 10)" in grid
    assert "1 picture (china), each followed by 2 random views under autoaugment-imagenet" in views
    assert report.data["operators"] == Policy.random(n=1, m=2, space="tf_tpu").operators()
    assert len(report.tables[1].rows) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"magnitudes": ()}, "magnitudes="),
        ({"magnitudes": range(11)}, "magnitudes="),
        ({"magnitudes": (28,)}, r"28.*tf_tpu"),
        ({"views": 0}, "views=0"),
        ({"operators": ["twist"]}, r"operators='twist'"),
        ({"operators": []}, r"operators=\[\]"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_drawn(change, words, tmp_path) -> None:
    with pytest.raises(ValueError, match=words):
        preview_report(["china"], tmp_path, **{"size": 16, **change})
    assert list(tmp_path.iterdir()) == []


def test_magnitudes_beyond_the_space_on_request(tmp_path) -> None:
    report = preview_report(["china"], tmp_path, magnitudes=(28,), operators=["rotate"], extrapolate=True, size=16)
    assert report.data["magnitudes"] == [28]
