"""Picture files there and back: what users of upscalers miss elsewhere (bit depth, transparency, profiles, EXIF)."""

import io
import os

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from effkit.errors import UserError
from shiftghost_sr.images import png16
from shiftghost_sr.images.picture import Picture, bleed
from shiftghost_sr.images.reading import from_pil, read_picture, to_pil
from shiftghost_sr.images.writing import suffix_for, write_picture

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*shape, peak=255):
    return np.random.default_rng(0).integers(0, peak + 1, shape).astype(np.uint16 if peak > 255 else np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("peak", [255, 65535])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_lossless_files_bring_every_pixel_back(tmp_path, suffix, peak, channels):
    pixels = noise(7, 5, channels, peak=peak)
    picture = Picture.from_array(pixels)
    back = read_picture(write_picture(picture, tmp_path / f"x{suffix}"))
    assert back.colour.dtype == pixels.dtype
    assert (back.array.reshape(pixels.shape) == pixels).all()
    assert (back.alpha is not None) == (channels in (2, 4))


@pytest.mark.parametrize("suffix", [".webp", ".bmp", ".ppm"])
def test_other_lossless_files(tmp_path, suffix):
    pixels = noise(7, 5, 3)
    assert (read_picture(write_picture(Picture(pixels), tmp_path / f"x{suffix}")).colour == pixels).all()


def test_every_filter_of_sixteen_bit_png():
    """A smooth picture by PIL's encoder, which chooses filters by line; and each filter by hand."""
    smooth = (np.add.outer(np.arange(60) * 900, np.arange(80) * 60) + noise(60, 80, peak=300)).astype(np.uint16)
    file = io.BytesIO()
    Image.fromarray(smooth).save(file, "PNG")
    pixels, _ = png16.decode(file.getvalue())
    assert (pixels[..., 0] == smooth).all()
    lines = smooth[:5].astype(">u2").view(np.uint8).reshape(5, -1).astype(int)
    filtered = []
    for row, kind in enumerate(range(5)):
        line = []
        for x in range(lines.shape[1]):
            a = lines[row, x - 2] if x >= 2 else 0
            b = lines[row - 1, x] if row else 0
            c = lines[row - 1, x - 2] if row and x >= 2 else 0
            p = a + b - c
            nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            line.append((lines[row, x] - [0, a, b, (a + b) // 2, nearest][kind]) % 256)
        filtered.append([kind, *line])
    raw = np.array(filtered, np.uint8).reshape(-1)
    assert (png16._unfiltered(raw, 5, 80, 1)[..., 0] == smooth[:5]).all()


@pytest.mark.parametrize("cut", [10, 60, -1])
def test_a_damaged_sixteen_bit_png_is_told(tmp_path, cut):
    whole = png16.encode(noise(9, 9, 3, peak=65535))
    (tmp_path / "x.png").write_bytes(whole[:cut] if cut != 60 else whole[:60] + b"?" + whole[61:])
    with pytest.raises(UserError, match=r"x\.png"):
        read_picture(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("suffix", "peak"), [(".png", 255), (".jpg", 255), (".webp", 255), (".tif", 255), (".png", 65535), (".tif", 65535)]
)
def test_profiles_survive(tmp_path, suffix, peak):
    picture = Picture(noise(8, 8, 3, peak=peak), profile=PROFILE)
    file = write_picture(picture, tmp_path / f"x{suffix}")
    assert read_picture(file).profile == PROFILE
    with Image.open(file) as seen:  # others find it too
        assert seen.info["icc_profile"] == PROFILE


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("peak", [255, 65535])
def test_pictures_come_upright_and_keep_their_exif(tmp_path, orientation, peak):
    pixels = noise(4, 6, 3, peak=peak)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "a camera"
    written = Picture(pixels, exif=exif.tobytes())
    back = read_picture(write_picture(written, tmp_path / "x.png"))
    if peak == 255:
        with Image.open(tmp_path / "x.png") as image:
            from PIL import ImageOps

            expected = np.array(ImageOps.exif_transpose(image))
    else:
        eight = Picture((pixels >> 8).astype(np.uint8), exif=exif.tobytes())
        expected = read_picture(write_picture(eight, tmp_path / "y.png")).colour
        back = back.with_pixels((back.colour >> 8).astype(np.uint8), None)
    assert (back.colour == expected).all()
    kept = Image.Exif()
    kept.load(back.exif)
    assert dict(kept) == {0x010F: "a camera"}


def test_damaged_exif_costs_nothing(tmp_path):
    pixels = noise(4, 6, 3)
    for name, picture in {"a": Picture(pixels), "b": Picture(pixels.astype(np.uint16))}.items():
        broken = Picture(picture.colour, exif=b"Exif\0\0MM\0*\0\0\0\xff")
        assert (read_picture(write_picture(broken, tmp_path / f"{name}.png")).colour == pixels).all()


def test_a_colour_that_counts_as_transparent(tmp_path):
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0] = 7
    Image.fromarray(pixels).save(tmp_path / "x.png", transparency=(7, 7, 7))
    assert read_picture(tmp_path / "x.png").alpha.tolist() == [[0, 255], [255, 255]]
    deep = png16.encode(pixels.astype(np.uint16), {b"tRNS": b"\0\7\0\7\0\7"})
    (tmp_path / "y.png").write_bytes(deep)
    assert read_picture(tmp_path / "y.png").alpha.tolist() == [[0, 65535], [65535, 65535]]


def test_palettes_and_bits(tmp_path):
    image = Image.fromarray(noise(6, 6, 3)).quantize(8)
    image.save(tmp_path / "x.gif")
    assert (read_picture(tmp_path / "x.gif").colour == np.array(image.convert("RGB"))).all()
    Image.fromarray(noise(6, 6) > 99).save(tmp_path / "x.png")
    assert read_picture(tmp_path / "x.png").colour.shape == (6, 6, 1)


def test_grey_stays_grey_and_pil_comes_back():
    grey = Image.fromarray(noise(5, 4))
    assert from_pil(grey).colour.shape == (5, 4, 1)
    assert to_pil(from_pil(grey)).mode == "L"
    assert to_pil(Picture(noise(5, 4, 1, peak=65535))).mode == "I;16"
    with pytest.raises(UserError, match="16 bits"):
        to_pil(Picture(noise(5, 4, 3, peak=65535)))


def written(path):
    return write_picture(Picture(noise(40, 40, 3)), path).read_bytes()


def refused(tmp_path):
    yield (
        "frames",
        "a.gif",
        lambda p: Image.new("L", (2, 2)).save(p, save_all=True, append_images=[Image.new("L", (2, 2), 9)]),
    )
    yield "CMYK", "a.jpg", lambda p: Image.new("CMYK", (8, 8)).save(p)
    yield "mode F", "a.tif", lambda p: Image.new("F", (8, 8)).save(p)
    yield "pages", "b.tif", lambda p: tifffile.imwrite(p, np.zeros((2, 8, 8), np.uint16), photometric="minisblack")
    yield (
        "unassociated",
        "c.tif",
        lambda p: tifffile.imwrite(p, np.zeros((8, 8, 4), np.uint16), photometric="rgb", extrasamples=["assocalpha"]),
    )
    yield "not a picture", "a.png", lambda p: p.write_bytes(b"text")
    yield "cannot read", "d.png", lambda p: p.write_bytes(png16.encode(noise(9, 9, 3, peak=65535))[:-30])
    yield "cannot read", "e.png", lambda p: p.write_bytes(written(p)[:-30])


@pytest.mark.parametrize("which", range(8))
def test_what_cannot_be_upscaled_faithfully_is_refused(tmp_path, which):
    words, name, make = list(refused(tmp_path))[which]
    make(tmp_path / name)
    with pytest.raises(UserError, match=words) as error:
        read_picture(tmp_path / name)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("picture", "name", "words"),
    [
        (Picture(noise(4, 4, 3), noise(4, 4)), "x.jpg", "transparency"),
        (Picture(noise(4, 4, 3, peak=65535)), "x.webp", "16 bits"),
        (Picture(noise(4, 4, 3)), "x.pgm", "colours"),
        (Picture(noise(1, 16384, 3)), "x.webp", "16383"),
        (Picture(noise(4, 4, 3)), "x.xyz", "suffix='.xyz'"),
    ],
)
def test_a_format_that_would_lose_something_is_refused(tmp_path, picture, name, words):
    with pytest.raises(UserError, match=words):
        write_picture(picture, tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    picture = Picture(noise(4, 4, 3))
    file = write_picture(picture, tmp_path / "x.png")
    before = file.read_bytes()

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_picture(Picture(noise(9, 9, 3)), file)
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.png"]


def test_endings(tmp_path):
    from pathlib import Path

    assert [suffix_for(Path(name)) for name in ("a.JPG", "a.b.tiff", "a.gif", "a")] == [".JPG", ".tiff", ".png", ".png"]


def test_bleeding_fills_what_is_hidden_only():
    colour, alpha = np.zeros((3, 5, 3), np.uint8), np.zeros((3, 5), np.uint8)
    colour[1, 1], alpha[1, 1] = (200, 10, 20), 1
    colour[1, 4], alpha[1, 4] = (1, 2, 3), 255
    filled = bleed(colour, alpha)
    assert (filled[:, :2] == (200, 10, 20)).all()
    assert (filled[:, 4] == (1, 2, 3)).all()
    assert (bleed(colour, np.zeros_like(alpha)) == colour).all()
    assert bleed(colour, np.full_like(alpha, 9)) is colour


@pytest.mark.parametrize(
    ("array", "words"),
    [(np.zeros((4, 4)), "float64"), (np.zeros((4, 4, 5), np.uint8), "5"), (np.zeros((0, 4, 3), np.uint8), "has none")],
)
def test_arrays_that_are_no_pictures(array, words):
    with pytest.raises(UserError, match=words):
        Picture.from_array(array)
