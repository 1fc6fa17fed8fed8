"""One look for every plot, and PNG files that are small and never half written.

Matplotlib is imported where it is used: every command imports reports, few of them draw.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effkit.errors import UserError
from effkit.report.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PLOT_COLOURS", "figure", "save_png"]

# One look for every plot. The eight colours are Okabe and Ito's, told apart also by colour-blind readers.
PLOT_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")


_PLOT_STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "savefig.facecolor": "white",
}


_MAX_PNG_BYTES = 300 * 1024


@contextlib.contextmanager
def figure(width: float = 7.0, height: float = 4.0) -> Iterator[Figure]:
    """Open a matplotlib figure in the house style, without pyplot and so without global figures.

    Draw and save inside the block: matplotlib reads some settings only when the figure is drawn.

    Args:
        width: Inches.
        height: Inches.

    Example:
        >>> with figure(width=4, height=3) as fig:  # doctest: +SKIP
        ...     fig.subplots().plot([1, 2], [3, 4])
        ...     save_png(fig, "line.png")
    """
    if width <= 0 or height <= 0:
        raise UserError(f"figure size must be positive inches, got width={width}, height={height}")
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    style: Any = {**_PLOT_STYLE, "axes.prop_cycle": cycler(color=PLOT_COLOURS)}
    with matplotlib.rc_context(style):
        yield Figure(figsize=(width, height), layout="constrained")


def save_png(fig: Figure, path: str | os.PathLike[str], dpi: int = 120) -> Path:
    """Save a figure as PNG, atomically and below 300 kB.

    A larger picture is first reduced to 256 colours (which plots do not show), then to fewer dots per inch.

    Args:
        fig: A figure from `figure`.
        path: Where to; missing folders are made.
        dpi: Dots per inch to begin with.

    Returns:
        The path.
    """
    from PIL import Image

    while True:
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})  # no version: same plot, same bytes
        if buffer.tell() >= _MAX_PNG_BYTES:
            picture = Image.open(io.BytesIO(buffer.getvalue())).convert("RGB").quantize(256)
            buffer = io.BytesIO()
            picture.save(buffer, format="PNG", optimize=True)
        if buffer.tell() < _MAX_PNG_BYTES or dpi <= 40:
            return write_bytes(path, buffer.getvalue())
        dpi = int(dpi * 0.8)
