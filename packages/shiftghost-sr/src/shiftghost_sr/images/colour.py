"""RGB and what networks on luma work with: BT.601 in studio range, as MATLAB's ``rgb2ycbcr``, all values 0..1."""

from __future__ import annotations

from torch import Tensor

__all__ = ["grey_of_y", "with_luma", "y_of_grey", "y_of_rgb"]

_Y = (65.481 / 255, 128.553 / 255, 24.966 / 255)
_LOW, _RANGE = 16 / 255, 219 / 255


def y_of_rgb(rgb: Tensor) -> Tensor:
    """Luma 16/255..235/255 of RGB 0..1.

    Args:
        rgb: ``(N, 3, H, W)``.

    Returns:
        ``(N, 1, H, W)``.
    """
    red, green, blue = rgb.unbind(1)
    return (_Y[0] * red + _Y[1] * green + _Y[2] * blue + _LOW)[:, None]


def y_of_grey(grey: Tensor) -> Tensor:
    """Luma of grey levels 0..1: that of RGB with three equal channels."""
    return grey * _RANGE + _LOW


def with_luma(rgb: Tensor, luma: Tensor) -> Tensor:
    """RGB whose luma is another one, its two colour differences unchanged.

    Args:
        rgb: ``(N, 3, H, W)``.
        luma: ``(N, 1, H, W)``.
    """
    # In this space a change of luma alone moves all three channels by the same, stretched to the full range.
    return rgb + (luma - y_of_rgb(rgb)) / _RANGE


def grey_of_y(luma: Tensor) -> Tensor:
    """Grey levels 0..1 of a luma."""
    return (luma - _LOW) / _RANGE
