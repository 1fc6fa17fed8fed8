"""Pictures: what ships with the libraries, the user's files in every state, and timm's evaluation preprocessing."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

import tnt_vit
from effkit.data import BUNDLED, find_pictures, load_picture
from tnt_vit.inference.preprocessing import preprocessing


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_photographs_are_colour_pictures(name):
    picture = load_picture(name)
    assert picture.mode == "RGB"
    assert min(picture.size) >= 300
    assert np.asarray(picture).std() > 20
    assert load_picture(name, in_chans=1).mode == "L"


def test_preprocessing_is_that_of_timms_own_model():
    model = tnt_vit.create_model("tnt_s", depth=1)
    config = resolve_data_config({}, model=timm.create_model("tnt_s_patch16_224", depth=1))
    picture = load_picture("china")
    want = create_transform(**config, is_training=False)(picture)
    assert torch.equal(preprocessing(model)(picture), want)
    assert config["mean"] == config["std"] == (0.5, 0.5, 0.5)


def test_a_model_without_a_name_is_normalised_as_the_published_ones():
    model = tnt_vit.TNT(
        img_size=(32, 48), patch_size=16, embed_dim=24, inner_dim=6, depth=1, num_heads=2, inner_num_heads=2
    )
    found = preprocessing(model)
    assert (found.size, found.mean, found.std, found.crop_pct) == ((32, 48), (0.5,) * 3, (0.5,) * 3, 0.9)
    assert found(load_picture("flower")).shape == (3, 32, 48)
    assert preprocessing(model, img_size=64, crop_pct=1.0).size == (64, 64)


def test_denormalising_gives_the_pixels_back():
    model = tnt_vit.create_model("tnt_s", depth=1)
    prepare = preprocessing(model, crop_pct=1.0)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8))
    pixels = prepare.denormalize(prepare(picture))
    np.testing.assert_allclose(pixels * 255, np.asarray(picture), atol=1e-4)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    found = np.asarray(load_picture(tmp_path / "deep.png", in_chans=1))
    np.testing.assert_allclose(found, values / 257, atol=1)


def test_transparency_becomes_white(tmp_path):
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    assert np.all(np.asarray(load_picture(tmp_path / "clear.png")) == 255)
    clear.convert("P").save(tmp_path / "palette.gif", transparency=0)
    assert load_picture(tmp_path / "palette.gif").mode == "RGB"


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    Image.new("RGB", (40, 20)).save(tmp_path / "side.jpg", exif=exif)
    assert load_picture(tmp_path / "side.jpg").size == (20, 40)


def test_bad_files_are_named_with_the_reason(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.jpg.*not a picture"):
        load_picture(tmp_path / "text.jpg")
    load_picture("coffee").save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:20_000])
    with pytest.raises(ValueError, match=r"cannot read the picture .*half\.png"):
        load_picture(tmp_path / "half.png")
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"float\.tif.*floating-point"):
        load_picture(tmp_path / "float.tif")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_picture(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match="folder"):
        load_picture(tmp_path)
    with pytest.raises(ValueError, match="in_chans=4"):
        load_picture("china", in_chans=4)


@pytest.mark.parametrize("limit", [300, 1000])  # above twice the limit PIL raises, above the limit it warns
def test_huge_pictures_are_refused(tmp_path, monkeypatch, limit):
    Image.new("RGB", (40, 40)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match=r"huge\.png.*too large"):
        load_picture(tmp_path / "huge.png")


def test_sources_are_files_folders_and_names(tmp_path):
    for name in ("b.png", "a.JPG"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a picture")
    found = find_pictures(["chelsea", tmp_path, tmp_path / "b.png"])
    assert found == ["chelsea", str(tmp_path / "a.JPG"), str(tmp_path / "b.png"), str(tmp_path / "b.png")]
    with pytest.raises(FileNotFoundError, match=r"nowhere.*astronaut"):
        find_pictures(["nowhere"])
    with pytest.raises(ValueError, match="images is empty"):
        find_pictures([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        find_pictures([tmp_path / "empty"])
