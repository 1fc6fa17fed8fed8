"""One look for every plot."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from effkit.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PLOT_COLOURS", "figure"]

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
        ...     describe(fig, "A line that rises from 3 to 4.")
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
