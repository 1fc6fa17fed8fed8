"""One reader of pictures: the same pixels for training, evaluation and prediction, whatever the file; else refused."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from effkit.data import BUNDLED, Preprocessing, create_data, find_pictures, load_picture
from effkit.data.finding import class_folders, class_pictures
from effkit.data.pictures import wheel_picture
from effkit.errors import UserError
from effkit.testing import write_image_folder

SIDE = 12
PIXELS = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
GREY = PIXELS[..., 0]


def alpha(pixels):
    return np.dstack([pixels, np.where(GREY > 127, 255, 96).astype(np.uint8)])


def on_white(pixels):
    """Composed by hand, to within a rounding."""
    weight = np.where(GREY > 127, 255, 96)[..., None] / 255
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    return np.broadcast_to(pixels * weight + 255 * (1 - weight), (SIDE, SIDE, 3))


def turned(orientation):
    """The picture as a camera held otherwise stores it."""
    undo = {2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1], 5: lambda p: p.swapaxes(0, 1)}
    undo |= {6: lambda p: np.rot90(p, 1), 7: lambda p: p[::-1, ::-1].swapaxes(0, 1), 8: lambda p: np.rot90(p, -1)}
    return np.ascontiguousarray(undo.get(orientation, lambda p: p)(PIXELS))


def oriented(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(turned(orientation)).save(path, exif=exif)


def palette_with_transparency(path):
    image = Image.fromarray(PIXELS).quantize(16, dither=Image.Dither.NONE)
    image.info["transparency"] = 3
    image.save(path, transparency=3)


def expected_palette():
    image = Image.fromarray(PIXELS).quantize(16, dither=Image.Dither.NONE)
    found = np.array(image.convert("RGB"))
    found[np.array(image) == 3] = 255
    return found


def animation(path):
    first = Image.fromarray(PIXELS).quantize(256)
    first.save(path, save_all=True, append_images=[Image.new("RGB", (SIDE, SIDE), "red").quantize(4)])


def cmyk(path):
    Image.fromarray(PIXELS).convert("CMYK").save(path)


def webp(path):
    frames = [Image.new("RGB", (SIDE, SIDE), "red")]
    Image.fromarray(PIXELS).save(path, save_all=True, append_images=frames, lossless=True)


RGB_OF_GREY = np.repeat(GREY[..., None], 3, 2)
KINDS = {
    "rgb.png": (lambda p: Image.fromarray(PIXELS).save(p), lambda: PIXELS),
    "grey.png": (lambda p: Image.fromarray(GREY).save(p), lambda: RGB_OF_GREY),
    "deep.png": (lambda p: Image.fromarray(GREY.astype(np.uint16) * 257).save(p), lambda: RGB_OF_GREY),
    "deep.tif": (lambda p: Image.fromarray(GREY.astype(np.int32) * 257).save(p), lambda: RGB_OF_GREY),
    "rgba.png": (lambda p: Image.fromarray(alpha(PIXELS)).save(p), lambda: on_white(PIXELS)),
    "la.png": (lambda p: Image.fromarray(alpha(GREY), "LA").save(p), lambda: on_white(GREY)),
    "palette.png": (palette_with_transparency, expected_palette),
    "cmyk.tif": (cmyk, lambda: PIXELS),
    "animated.gif": (animation, lambda: np.array(Image.fromarray(PIXELS).quantize(256).convert("RGB"))),
    "animated.webp": (webp, lambda: PIXELS),
    **{f"exif{o}.png": (lambda p, o=o: oriented(p, o), lambda: PIXELS) for o in range(1, 9)},
}


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", KINDS)
def test_the_same_pixels_through_every_path(tmp_path, name):
    write, expected = KINDS[name]
    for split in ("train", "val"):
        (tmp_path / split / "one").mkdir(parents=True)
    file = tmp_path / "train" / "one" / name
    write(file)
    (tmp_path / "val" / "one" / name).write_bytes(file.read_bytes())
    read = np.array(load_picture(file))
    with Image.open(file) as opened:
        from_opened = Preprocessing(SIDE).picture(opened)
    np.testing.assert_allclose(read, expected(), atol=1)
    data = create_data(
        "imagefolder", root=str(tmp_path), image_size=SIDE, crop_pct=1.0, augment="none", num_workers=0, batch_size=1
    )
    ways = {
        "training": next(iter(data.train_dataloader()))[0][0],
        "evaluation": next(iter(data.test_dataloader()))[0][0],
        "whole split": data.pictures("val")[0],
        "prediction": data.preprocessing.picture(find_pictures([tmp_path / "val" / "one"])[0]),
        "an opened picture": from_opened,
        "an array": data.preprocessing.picture(read),
    }
    for way, pixels in ways.items():
        assert pixels.dtype == torch.uint8
        assert torch.equal(pixels, torch.from_numpy(read).permute(2, 0, 1)), way
    grey = np.array(load_picture(file, in_chans=1))
    luma = np.array(Image.fromarray(read).convert("L"))
    np.testing.assert_allclose(grey, luma, atol=2)


REFUSED = {
    "float.tif": (lambda p: Image.fromarray(np.zeros((4, 4), np.float32)).save(p), r"floating-point.*8 or 16 bits"),
    "int.tif": (lambda p: Image.fromarray(np.full((4, 4), 70000, np.int32)).save(p), r"32-bit.*8 or 16 bits"),
    "text.jpg": (lambda p: p.write_text("no picture"), r"is not a picture that PIL can read"),
    "empty.png": (lambda p: p.write_bytes(b""), r"is not a picture that PIL can read"),
    "half.png": (lambda p: half(p), r"cannot read the picture"),
}


def half(path):
    Image.fromarray(PIXELS.repeat(20, 0).repeat(20, 1)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_bad_files(root):
    write_image_folder(root, splits=("train", "val"), count=3)
    for name, (write, _) in REFUSED.items():
        write(root / "train" / "cat" / name)
    return root


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_by_name_in_one_line(tmp_path, name):
    write, message = REFUSED[name]
    write(tmp_path / name)
    for read in (load_picture, Preprocessing(8).picture):
        with pytest.raises(UserError, match=message) as caught:
            read(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_loaders_process_names_the_file_in_one_line_too(tmp_path):
    root = write_image_folder(tmp_path, count=1)
    half(root / "val" / "cat" / "half.png")
    data = create_data("imagefolder", root=str(root), image_size=8, num_workers=1)
    with pytest.raises(UserError, match=r"^cannot read the picture .*half\.png'") as caught:
        list(data.val_dataloader())
    assert "\n" not in str(caught.value)


def test_unreadable_pictures_can_be_left_out_counted_and_listed(tmp_path, caplog):
    root = with_bad_files(tmp_path)
    options = {"root": str(root), "image_size": 8, "num_workers": 0, "batch_size": 2}
    with pytest.raises(UserError, match=r"cannot read|not a picture"):
        list(create_data("imagefolder", **options).train_dataloader())
    data = create_data("imagefolder", **options, skip_unreadable=True)
    with caplog.at_level(logging.WARNING):
        assert [len(labels) for _, labels in data.train_dataloader()] == [2, 2, 2]
    (line,) = [r.getMessage() for r in caplog.records if "skip_unreadable" in r.getMessage()]
    assert f"leaves out {len(REFUSED)} of {6 + len(REFUSED)} pictures" in line
    assert line.endswith(f"; and {len(REFUSED) - 3} more")
    assert {path.rsplit("/", 1)[1] for path in data.unreadable} == set(REFUSED)
    for file in (root / "train" / "dog").iterdir():
        file.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"no picture of the class dog can be read: "):
        create_data("imagefolder", **options, skip_unreadable=True).split("train")


def test_hidden_folders_and_files_are_neither_classes_nor_pictures(tmp_path):
    root = write_image_folder(tmp_path, classes=("ant", "bee"), count=2)
    for hidden in (root / "train" / ".ipynb_checkpoints", root / "train" / "bee" / ".ipynb_checkpoints"):
        hidden.mkdir()
        (hidden / "0-checkpoint.png").write_bytes((root / "train" / "ant" / "0.png").read_bytes())
    (root / "train" / "ant" / "._0.png").write_bytes(b"resource fork")
    data = create_data("imagefolder", root=str(root), image_size=8, num_workers=0)
    assert data.class_names == class_folders(root / "train") == data.split("train").classes == ["ant", "bee"]
    assert data.labels("train").tolist() == data.labels("val").tolist() == [0, 0, 1, 1]
    assert len(find_pictures([root / "train" / "ant"])) == 2


def test_pictures_come_in_torchvisions_order(tmp_path):
    from torchvision.datasets import ImageFolder

    for name in ("b/x.png", "b/a/y.png", "b/z.PNG", "a/2.jpg", "a/10.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS).save(tmp_path / name)
    assert class_pictures(tmp_path, ["a", "b"]) == ImageFolder(str(tmp_path)).samples


# --- what `predict` is given ------------------------------------------------------------------------------------------


def test_sources_are_files_folders_patterns_and_names(tmp_path):
    for name in ("b.png", "a.JPG", "c.gif"):
        Image.fromarray(PIXELS).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "[1].png").write_bytes((tmp_path / "b.png").read_bytes())
    inside = [str(tmp_path / name) for name in ("[1].png", "a.JPG", "b.png", "c.gif")]
    assert find_pictures(["chelsea", tmp_path, tmp_path / "b.png"]) == ["chelsea", *inside, str(tmp_path / "b.png")]
    assert find_pictures([tmp_path / "*.png", f"{tmp_path}/**/a.*"]) == [inside[0], inside[2], inside[1]]
    assert find_pictures([inside[0]]) == [inside[0]]  # a file of that name, not a pattern
    for source, message in {
        "http://example.org/cat.jpg": r"is a web address: download it",
        str(tmp_path / "*.bmp"): r"no picture fits",
    }.items():
        with pytest.raises(UserError, match=message):
            find_pictures([source])
    with pytest.raises(FileNotFoundError, match=r"nowhere.*astronaut"):
        find_pictures(["nowhere"])
    with pytest.raises(UserError, match="images is empty"):
        find_pictures([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        find_pictures([tmp_path / "empty"])


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_photographs_are_colour_pictures(name):
    picture = load_picture(name)
    assert picture.mode == "RGB"
    assert min(picture.size) >= 300
    assert load_picture(name, in_chans=1).mode == "L"


def test_missing_files_folders_and_channels_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_picture(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match="folder"):
        load_picture(tmp_path)
    with pytest.raises(UserError, match="in_chans=4"):
        load_picture("china", in_chans=4)
    for array in (np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((1, 4, 4, 3), np.uint8)):
        with pytest.raises(UserError, match=r"is no picture: give uint8"):
            load_picture(array)
    with pytest.raises(UserError, match=r"16-bit pixels must be grey"):
        load_picture(np.zeros((4, 4, 3), np.uint16))


@pytest.mark.parametrize("limit", [300, 1000])  # above twice the limit PIL raises, above the limit it warns
def test_huge_pictures_are_refused(tmp_path, monkeypatch, limit):
    Image.new("RGB", (40, 40)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UserError, match=r"huge\.png.*too large"):
        load_picture(tmp_path / "huge.png")


def test_damaged_exif_data_does_not_cost_the_picture(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "odd.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x01")
    assert load_picture(tmp_path / "odd.jpg").size == (SIDE, SIDE)


def test_pictures_in_a_wheel():
    assert wheel_picture("retina").size == (1411, 1411)
    assert wheel_picture("camera").mode == "RGB"
    with pytest.raises(UserError, match="no picture 'mandrill'"):
        wheel_picture("mandrill")
