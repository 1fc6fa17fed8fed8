"""PNG files that are small, hold the picture whole, and say what is seen in it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effkit.plots.captions import fit_captions
from effkit.plots.sentence import DESCRIPTION, description_of
from effkit.report.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image as Picture

__all__ = ["MAX_PNG_BYTES", "save_png"]

MAX_PNG_BYTES = 300 * 1024
_FEWEST_DPI = 40
_EDGE = 0.04  # inches left free around what the canvas is extended for


def save_png(fig: Figure, path: str | os.PathLike[str], dpi: int = 120, *, photos: bool = False) -> Path:
    """Save a figure as PNG, atomically and below 300 KiB, with nothing cut off and its description inside.

    Captions that are too long are wrapped (see `fit_captions`). A file that is too large is first reduced to 256
    colours, which plots do not show, then to fewer dots per inch.

    Args:
        fig: A figure from `figure`, of which `describe` was told what it shows.
        path: Where to; missing folders are made.
        dpi: Dots per inch to begin with.
        photos: It holds photographs: 256 colours are dithered then, which spoils them less.

    Returns:
        The path.

    Raises:
        ValueError: If nobody said what the figure shows.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    sentence = description_of(fig)
    fit_captions(fig)
    inside = PngInfo()
    inside.add_itxt(DESCRIPTION, sentence)
    while True:
        buffer = io.BytesIO()
        # This is all that the file says besides pixels: no version of matplotlib, so the same plot is the same bytes.
        fig.savefig(buffer, format="png", dpi=dpi, pil_kwargs={"pnginfo": inside}, bbox_inches=_whole(fig))
        if buffer.tell() >= MAX_PNG_BYTES:
            picture = Image.open(buffer).convert("RGB")
            reduced = _dithered(picture) if photos else picture.quantize(256)
            buffer = io.BytesIO()
            reduced.save(buffer, format="PNG", optimize=True, pnginfo=inside)
        if buffer.tell() < MAX_PNG_BYTES or dpi <= _FEWEST_DPI:
            return write_bytes(path, buffer.getvalue())
        dpi = int(dpi * 0.85)


def _whole(fig: Figure) -> Any:
    """The canvas, or more of it where something would be cut off; `None` stands for the canvas."""
    from matplotlib.transforms import Bbox

    canvas, drawn = fig.bbox_inches, fig.get_tightbbox()
    if canvas.x0 <= drawn.x0 and canvas.y0 <= drawn.y0 and drawn.x1 <= canvas.x1 and drawn.y1 <= canvas.y1:
        return None
    return Bbox.union([canvas, drawn.padded(_EDGE)])


def _dithered(picture: Picture, exact: int = 16) -> Picture:
    """With 256 colours: the commonest ones as they are, so that flat areas stay flat, and good ones for the rest."""
    from PIL import Image

    colours = sorted(picture.getcolors(picture.width * picture.height) or [], reverse=True)
    kept = [rgb for _, rgb in colours[:exact]]
    part = picture.resize((-(-picture.width // 3), -(-picture.height // 3)), Image.Resampling.NEAREST)  # says enough
    rest = part.quantize(256 - len(kept), method=Image.Quantize.MAXCOVERAGE)
    flat = [channel for rgb in kept for channel in rgb] + (rest.getpalette() or [])[: 3 * (256 - len(kept))]  # type: ignore[attr-defined]
    palette = Image.new("P", (1, 1))
    palette.putpalette(flat)
    return picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
