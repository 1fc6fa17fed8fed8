"""A picture with all that an upscaler must bring through: colours, transparency, bit depth, colour profile, EXIF."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from effkit.errors import UserError

__all__ = ["Picture", "bleed"]


@dataclass(frozen=True)
class Picture:
    """A picture in memory.

    Attributes:
        colour: ``(H, W, 1)`` (grey) or ``(H, W, 3)`` (RGB), uint8 or uint16.
        alpha: ``(H, W)`` of the same dtype, or ``None`` where nothing is transparent.
        profile: ICC profile, or ``None``.
        exif: EXIF data without an orientation (pixels are upright), or ``None``.
        palette: It was stored with a palette, which its upscaled form does not fit.
    """

    colour: NDArray
    alpha: NDArray | None = None
    profile: bytes | None = None
    exif: bytes | None = None
    palette: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        colour, alpha = self.colour, self.alpha
        if colour.ndim != 3 or colour.shape[2] not in (1, 3) or colour.dtype not in (np.uint8, np.uint16):
            raise UserError(
                f"a picture of shape {colour.shape} and {colour.dtype} cannot be used: expected (H, W, 1) or (H, W, "
                "3), uint8 or uint16"
            )
        if 0 in colour.shape:
            raise UserError(f"a picture of {colour.shape[1]}x{colour.shape[0]} pixels has none")
        if alpha is not None and (alpha.shape != colour.shape[:2] or alpha.dtype != colour.dtype):
            raise UserError(
                f"alpha of shape {alpha.shape} and {alpha.dtype} does not fit colours of shape {colour.shape} "
                f"and {colour.dtype}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.colour.shape[0], self.colour.shape[1]

    @property
    def peak(self) -> int:
        """The largest value of a channel."""
        return int(np.iinfo(self.colour.dtype).max)

    @property
    def array(self) -> NDArray:
        """``(H, W)`` if grey and opaque, else ``(H, W, C)`` with alpha as the last channel."""
        if self.alpha is not None:
            return np.concatenate([self.colour, self.alpha[..., None]], axis=2)
        return self.colour[..., 0] if self.colour.shape[2] == 1 else self.colour

    def with_pixels(self, colour: NDArray, alpha: NDArray | None) -> Picture:
        """The same profile and EXIF data around other pixels."""
        return replace(self, colour=colour, alpha=alpha)

    @classmethod
    def from_array(cls, array: NDArray) -> Picture:
        """The picture that :attr:`array` stands for.

        Raises:
            UserError: If it is none.
        """
        channels = 1 if array.ndim == 2 else array.shape[-1]
        if array.ndim not in (2, 3) or channels not in (1, 2, 3, 4) or array.dtype not in (np.uint8, np.uint16):
            raise UserError(
                f"an array of shape {array.shape} and {array.dtype} is no picture: give uint8 or uint16 pixels "
                "(H, W) or (H, W, C) with 1 to 4 channels"
            )
        pixels = array.reshape(*array.shape[:2], channels)
        opaque = channels in (1, 3)
        return cls(pixels if opaque else pixels[..., :-1], None if opaque else pixels[..., -1])


def bleed(colour: NDArray, alpha: NDArray) -> NDArray:
    """Give fully transparent pixels the colour of the nearest visible one.

    What lies hidden under them (mostly black or white) would otherwise be mixed into the edges by whatever looks at
    more than one pixel, and show as a fringe.

    Args:
        colour: ``(H, W, C)``.
        alpha: ``(H, W)``; 0 is invisible.

    Returns:
        The colours; visible ones are unchanged. With nothing visible at all they stay as they are.
    """
    from scipy.ndimage import distance_transform_edt

    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return colour
    nearest = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    return colour[tuple(nearest)]
