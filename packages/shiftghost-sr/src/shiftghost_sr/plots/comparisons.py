"""Pictures beside each other: enlarged ones and the original, and where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effkit.plots import describe, figure, joined, save_png

__all__ = ["busiest_part", "draw_comparison", "draw_errors"]


def busiest_part(picture: NDArray, side: int) -> tuple[slice, slice]:
    """The square part of a picture with the most detail (sum of differences of neighbours).

    Args:
        picture: ``(H, W, C)``.
        side: Pixels; cut to the picture.
    """
    grey = picture.astype(np.float64).mean(2)
    detail = np.zeros_like(grey)
    detail[1:] += np.abs(np.diff(grey, axis=0))
    detail[:, 1:] += np.abs(np.diff(grey, axis=1))
    height, width = (min(side, length) for length in grey.shape)
    total = np.pad(detail.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)


def draw_comparison(
    pictures: Mapping[str, NDArray], psnr: Mapping[str, float], part: tuple[slice, slice], path: Path, title: str
) -> Path:
    """Draw a part of a picture as several methods enlarge it.

    Args:
        pictures: uint8 ``(H, W, 3)`` or ``(H, W, 1)`` of equal size by the method's name, the original last.
        psnr: dB by name, of the whole picture; those without are shown without.
        part: Which part, rows and columns.
        path: PNG file to write.
        title: Of the picture.
    """
    with figure(2.6 * len(pictures), 3.3) as fig:
        for ax, (name, picture) in zip(fig.subplots(1, len(pictures), squeeze=False)[0], pictures.items(), strict=True):
            ax.imshow(_shown(picture[part]), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            ax.set_title(f"{name}\n{psnr[name]:.2f} dB" if name in psnr else f"{name}\n", fontsize=9)
            ax.set_axis_off()
        fig.suptitle(title)
        parts = [f"{name} {psnr[name]:.2f} dB" if name in psnr else name for name in pictures]
        describe(fig, f"The same part of a photograph side by side: {joined(parts)}.")
        return save_png(fig, path, photos=True)


def draw_errors(
    errors: Mapping[str, NDArray], path: Path, title: str, *, part: tuple[slice, slice] | None = None
) -> Path:
    """Draw where enlarged pictures differ from the original, on one scale.

    Args:
        errors: Absolute difference of the luma in grey levels, ``(H, W)``, by the method's name.
        path: PNG file to write.
        title: Of the picture.
        part: Show this part only.
    """
    top = max(float(np.quantile(error, 0.995)) for error in errors.values()) or 1.0
    with figure(3.2 * len(errors) + 0.8, 3.4) as fig:
        axes = fig.subplots(1, len(errors), squeeze=False)[0]
        for ax, (name, error) in zip(axes, errors.items(), strict=True):
            shown = error if part is None else error[part]
            image = ax.imshow(shown, cmap="magma", vmin=0, vmax=top, interpolation="nearest")
            ax.set_title(f"{name}\nmean {error.mean():.2f}", fontsize=9)
            ax.set_axis_off()
        fig.colorbar(image, ax=list(axes), label="error, grey levels", shrink=0.85)
        fig.suptitle(title)
        parts = [f"{name} {error.mean():.2f} grey levels" for name, error in errors.items()]
        describe(fig, f"Heat maps of the error against the original; on average {joined(parts)}.")
        return save_png(fig, path)


def _shown(picture: NDArray) -> NDArray:
    return picture[..., 0] if picture.shape[2] == 1 else picture
