"""PSNR and SSIM as super-resolution papers report them: on MATLAB's luma, with a border left out.

The luma is not rounded: rounding it lowers the result by up to 0.09 dB, a common cause of figures that cannot be
reproduced.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from effkit.errors import UserError

__all__ = ["SMALLEST", "luma", "psnr_rgb", "psnr_y", "shaved", "ssim_y"]

WEIGHTS = np.array([65.481, 128.553, 24.966])
SMALLEST = 11  # pixels a side that SSIM's window needs


def luma(picture: NDArray) -> NDArray:
    """MATLAB's ``rgb2ycbcr(...)(:, :, 1)`` in floating point, 16..235.

    Args:
        picture: uint8 ``(H, W, 3)``; one of ``(H, W)`` or ``(H, W, 1)`` is taken to be luma already.

    Returns:
        float64 ``(H, W)``.

    Raises:
        UserError: If it is of another kind.
    """
    if picture.dtype != np.uint8:
        raise UserError(f"metrics take pictures of bytes, got {picture.dtype}: round to uint8 first")
    if picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 1):
        return picture.reshape(picture.shape[:2]).astype(np.float64)
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise UserError(f"metrics take pictures of shape (H, W) or (H, W, 3), got {picture.shape}")
    red, green, blue = np.moveaxis(picture.astype(np.float64), 2, 0)
    return (WEIGHTS[0] * red + WEIGHTS[1] * green + WEIGHTS[2] * blue) / 255 + 16


def shaved(picture: NDArray, shave: int) -> NDArray:
    """Leave ``shave`` pixels out at each side.

    Raises:
        UserError: If nothing would be left, or ``shave`` is no whole number of at least 0.
    """
    if isinstance(shave, bool) or not isinstance(shave, int) or shave < 0:
        raise UserError(f"shave={shave!r} must be a whole number of at least 0")
    height, width = picture.shape[:2]
    if min(height, width) <= 2 * shave:
        raise UserError(f"shave={shave} leaves nothing of a picture of {width}x{height} pixels")
    return picture[shave : height - shave, shave : width - shave]


def psnr_y(restored: NDArray, original: NDArray, shave: int) -> float:
    """Peak signal-to-noise ratio of the luma in dB, peak 255; infinite if the lumas are equal.

    Args:
        restored: uint8 ``(H, W, 3)``, or luma ``(H, W)``.
        original: Likewise.
        shave: Pixels to leave out at each side; by convention the scale.

    Raises:
        UserError: If shapes differ or nothing is left.
    """
    return _psnr(luma(restored), luma(original), shave)


def psnr_rgb(restored: NDArray, original: NDArray, shave: int) -> float:
    """PSNR over all channels, DIV2K's protocol (with ``shave = scale + 6``); arguments as for :func:`psnr_y`."""
    for picture in (restored, original):
        luma(picture)  # checks the kind
    return _psnr(restored.astype(np.float64), original.astype(np.float64), shave)


def ssim_y(restored: NDArray, original: NDArray, shave: int) -> float:
    """Structural similarity of the luma: 11x11 Gaussian of 1.5 pixels, K1 0.01, K2 0.03, population covariance.

    Arguments as for :func:`psnr_y`.

    Raises:
        UserError: If shapes differ, or less than 11x11 pixels are left.
    """
    from skimage.metrics import structural_similarity

    a, b = _pair(luma(restored), luma(original), shave)
    if min(a.shape) < SMALLEST:
        raise UserError(f"SSIM needs {SMALLEST}x{SMALLEST} pixels, shave={shave} leaves {a.shape[1]}x{a.shape[0]}")
    return float(
        structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, K1=0.01, K2=0.03
        )
    )


def _pair(restored: NDArray, original: NDArray, shave: int) -> tuple[NDArray, NDArray]:
    if restored.shape != original.shape:
        raise UserError(f"the pictures have different shapes, {restored.shape} and {original.shape}")
    return shaved(restored, shave), shaved(original, shave)


def _psnr(restored: NDArray, original: NDArray, shave: int) -> float:
    a, b = _pair(restored, original, shave)
    error = float(np.mean((a - b) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
