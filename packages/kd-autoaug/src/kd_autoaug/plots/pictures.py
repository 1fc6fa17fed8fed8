"""Pictures inside figures: drawn with their own grey values, and saved so that photographs stay small and good."""

from __future__ import annotations

import io
import os
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from effkit.report import write_bytes

__all__ = ["picture_axes", "save_photo_png", "show"]

_MAX_BYTES = 300 * 1024


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


def save_photo_png(fig: Figure, path: str | os.PathLike[str], dpi: int = 110) -> Path:
    """Save a figure that holds photographs, atomically and below 300 kB.

    One too large for full colour gets 256 dithered colours, which spoil photographs less than the undithered ones that
    are enough for plots; one still too large gets fewer dots per inch.
    """
    while True:
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        if buffer.tell() >= _MAX_BYTES:
            picture = Image.open(buffer).convert("RGB")
            buffer = io.BytesIO()
            dithered = picture.quantize(palette=_palette(picture), dither=Image.Dither.FLOYDSTEINBERG)
            dithered.save(buffer, format="PNG", optimize=True)
        if buffer.tell() < _MAX_BYTES or dpi <= 40:
            return write_bytes(path, buffer.getvalue())
        dpi = int(dpi * 0.85)


def _palette(picture: Image.Image, exact: int = 16) -> Image.Image:
    """256 colours: the commonest ones as they are, so that flat areas stay flat, and good ones for the rest."""
    colours = sorted(picture.getcolors(picture.width * picture.height) or [], reverse=True)
    kept = [rgb for _, rgb in colours[:exact]]
    rest = picture.quantize(256 - len(kept), method=Image.Quantize.MEDIANCUT, kmeans=1)
    flat = [channel for rgb in kept for channel in rgb] + (rest.getpalette() or [])[: 3 * (256 - len(kept))]  # type: ignore[attr-defined]
    palette = Image.new("P", (1, 1))
    palette.putpalette(flat)
    return palette
