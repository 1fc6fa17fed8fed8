"""Pictures inside figures, drawn with their own grey values."""

from __future__ import annotations

from matplotlib.axes import Axes
from torch import Tensor

__all__ = ["picture_axes", "show"]


def picture_axes(ax: Axes) -> None:
    """Axes for a picture: no ticks, no grid, a thin frame."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(True)
        spine.set_linewidth(0.5)
        spine.set_color("#999999")


def show(ax: Axes, picture: Tensor) -> None:
    """Draw a picture uint8 ``(C, H, W)`` with its own grey values, pixels left square."""
    pixels = picture.cpu().numpy()
    picture_axes(ax)
    smooth = "nearest" if max(pixels.shape[1:]) < 100 else "antialiased"
    if len(pixels) == 1:
        ax.imshow(pixels[0], cmap="gray", vmin=0, vmax=255, interpolation=smooth)
    else:
        ax.imshow(pixels.transpose(1, 2, 0), interpolation=smooth)
