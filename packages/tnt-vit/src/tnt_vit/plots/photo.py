"""Figures that hold photographs as PNG files of a bounded size."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from effkit.report import write_bytes

__all__ = ["MAX_BYTES", "save_photo_png"]

MAX_BYTES = 300 * 1024


def save_photo_png(fig: Figure, path: Path, dpi: int = 120) -> Path:
    """Save a figure that holds photographs, atomically and below 300 KiB.

    One too large for full colour gets 256 colours of its own, dithered: undithered ones, enough for plots, spoil
    photographs.
    """
    while True:
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        if buffer.tell() >= MAX_BYTES:
            picture = Image.open(buffer).convert("RGB")
            sample = picture.resize((max(1, picture.width // 3), max(1, picture.height // 3)), Image.Resampling.NEAREST)
            palette = sample.quantize(256, method=Image.Quantize.MAXCOVERAGE)
            buffer = io.BytesIO()
            picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(
                buffer, format="PNG", optimize=True
            )
        if buffer.tell() < MAX_BYTES or dpi <= 40:
            return write_bytes(path, buffer.getvalue())
        dpi = int(dpi * 0.85)
