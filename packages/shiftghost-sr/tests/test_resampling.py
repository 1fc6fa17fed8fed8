"""MATLAB's imresize: goldens of real photographs, and what must hold for any picture."""

import hashlib
from fractions import Fraction

import numpy as np
import pytest
import skimage.data

from effkit.errors import UserError
from shiftghost_sr.images.resampling import imresize, mod_crop, output_size

# Low-resolution pictures of scikit-image's astronaut: sum of all values and the beginning of their SHA-256. The routine
# behind them reproduces the pictures shipped with Set5 to the bit (fact sheet, 8.8).
ASTRONAUT = {
    2: (22_532_783, "86e24d8e2e582de8"),
    3: (9_968_556, "779d988f4eb5bb0e"),
    4: (5_633_924, "53ca505a86fd24fa"),
}


@pytest.mark.parametrize("scale", ASTRONAUT)
def test_low_resolution_is_matlabs(scale):
    low = imresize(mod_crop(skimage.data.astronaut(), scale), 1 / scale)
    assert low.dtype == np.uint8
    assert (int(low.sum()), hashlib.sha256(low.tobytes()).hexdigest()[:16]) == ASTRONAUT[scale]


@pytest.mark.parametrize(("name", "scale", "total"), [("chelsea", 2, 11_672_756), ("coffee", 4, 4_437_861)])
def test_other_photographs(name, scale, total):
    assert int(imresize(mod_crop(getattr(skimage.data, name)(), scale), 1 / scale).sum()) == total


def test_rounding_between_the_passes_matters():
    photo = skimage.data.astronaut()
    once = np.clip(np.floor(imresize(photo.astype(np.float64), 0.5) + 0.5), 0, 255)
    assert 0 < np.mean(once != imresize(photo, 0.5)) < 0.2


def test_constants_stay_and_single_pixels_grow():
    assert (imresize(np.full((7, 5, 3), 201, np.uint8), 1 / 3) == 201).all()
    assert imresize(np.full((1, 1), 9, np.uint8), 4).tolist() == [[9] * 4] * 4
    assert imresize(np.full((5, 1, 3), 9, np.uint8), 1 / 4).shape == (2, 1, 3)


def test_a_line_by_hand():
    """Factor 2 of an impulse: cubic weights at 1/4 and 3/4 of a pixel."""
    line = np.zeros((1, 9))
    line[0, 4] = 128
    expected = [-3, -9, 29, 111, 111, 29, -9, -3]
    assert imresize(line, size=(1, 18))[0, 5:13].tolist() == expected


def test_sixteen_bits():
    deep = skimage.data.astronaut().astype(np.uint16) * 128 + 16384  # nothing is clipped
    low = imresize(deep, 0.5)
    assert low.dtype == np.uint16
    assert 0 < np.abs(low - imresize(deep.astype(np.float64), 0.5)).max() < 1.2  # two roundings


def test_sizes():
    assert output_size(510, 1 / 3) == 170
    assert [output_size(n, 1 / 3) for n in (511, 512, 1, 2)] == [171, 171, 1, 1]
    assert output_size(7, Fraction(3, 2)) == 11
    assert imresize(np.zeros((6, 8), np.uint8), size=(3, 5)).shape == (3, 5)
    assert mod_crop(np.zeros((7, 9, 3)), 4).shape == (4, 8, 3)


def test_the_stronger_shrinking_goes_first():
    """MATLAB's order of the dimensions shows in the rounding between the passes."""
    wide = skimage.data.astronaut()[:, :, 0]
    columns_first = imresize(imresize(wide, size=(512, 128)), size=(256, 128))
    rows_first = imresize(imresize(wide, size=(256, 512)), size=(256, 128))
    both = imresize(wide, size=(256, 128))
    assert (both == columns_first).all()
    assert (both != rows_first).any()


@pytest.mark.parametrize(
    ("picture", "options", "words"),
    [
        (np.zeros((4, 4), np.int32), {"scale": 2}, "int32"),
        (np.zeros((0, 4)), {"scale": 2}, "at least one pixel"),
        (np.zeros((4, 4)), {}, "either scale or size"),
        (np.zeros((4, 4)), {"scale": 0}, "scale=0"),
        (np.zeros((4, 4)), {"scale": float("nan")}, "scale=nan"),
        (np.zeros((4, 4)), {"size": (0, 3)}, "size=(0, 3)"),
    ],
)
def test_mistakes(picture, options, words):
    with pytest.raises(UserError, match=words.replace("(", r"\(").replace(")", r"\)")):
        imresize(picture, **options)


def test_too_small_for_the_scale():
    with pytest.raises(UserError, match="scale=4"):
        mod_crop(np.zeros((3, 9)), 4)
