"""PSNR and SSIM: goldens of real photographs, closed forms, and mistakes."""

import math

import numpy as np
import pytest
import skimage.data

from effkit.errors import UserError
from shiftghost_sr.images.metrics import luma, psnr_rgb, psnr_y, ssim_y
from shiftghost_sr.images.resampling import imresize, mod_crop

# Bicubic there and back (fact sheet, 8.8).
GOLDENS = {
    ("astronaut", 2): (31.7073, 0.94559),
    ("astronaut", 3): (28.6788, 0.89343),
    ("astronaut", 4): (26.8382, 0.84269),
    ("chelsea", 2): (35.2523, 0.91582),
    ("coffee", 4): (27.2914, 0.76482),
}


@pytest.mark.parametrize(("name", "scale"), GOLDENS)
def test_bicubic(name, scale):
    high = mod_crop(getattr(skimage.data, name)(), scale)
    restored = imresize(imresize(high, 1 / scale), scale)
    psnr, ssim = GOLDENS[name, scale]
    assert psnr_y(restored, high, scale) == pytest.approx(psnr, abs=5.1e-5)
    assert ssim_y(restored, high, scale) == pytest.approx(ssim, abs=5.1e-6)


def test_rounding_the_luma_would_lower_the_figure():
    high = mod_crop(skimage.data.chelsea(), 2)
    restored = imresize(imresize(high, 1 / 2), 2)
    rounded = [np.round(luma(picture)).astype(np.uint8) for picture in (restored, high)]
    assert psnr_y(restored, high, 2) - psnr_y(*rounded, 2) > 0.01


def test_closed_forms():
    black, white = np.zeros((12, 12, 3), np.uint8), np.full((12, 12, 3), 255, np.uint8)
    assert np.allclose(luma(white), 235, atol=1e-9)
    assert (luma(black) == 16).all()
    assert math.isinf(psnr_y(black, black, 0))
    assert psnr_y(black, white, 0) == pytest.approx(20 * math.log10(255 / 219))
    assert psnr_rgb(black, white, 2) == pytest.approx(0.0)
    assert ssim_y(white, white, 0) == 1.0


def test_the_border_is_left_out():
    a = np.zeros((20, 20), np.uint8)
    b = a.copy()
    b[0] = 255
    assert math.isinf(psnr_y(a, b, 1))
    assert psnr_y(a, b, 0) == pytest.approx(10 * math.log10(20))


@pytest.mark.parametrize(
    ("a", "b", "shave", "words"),
    [
        (np.zeros((9, 9), np.uint8), np.zeros((9, 8), np.uint8), 0, "different shapes"),
        (np.zeros((9, 9)), np.zeros((9, 9)), 0, "float64"),
        (np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8), 5, "shave=5"),
        (np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8), -1, "shave=-1"),
        (np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 4), np.uint8), 0, "9, 9, 4"),
    ],
)
def test_mistakes(a, b, shave, words):
    with pytest.raises(UserError, match=words):
        psnr_y(a, b, shave)
    with pytest.raises(UserError):
        ssim_y(a, b, shave)
