"""What each operator costs by each backend, as one PNG."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from effkit.errors import UserError
from effkit.plots import PLOT_COLOURS, describe, figure, joined, save_png

__all__ = ["plot_operator_times"]


def plot_operator_times(
    times: Mapping[str, Mapping[str, float]], path: str | os.PathLike[str], *, title: str = ""
) -> Path:
    """Draw a group of bars for each operator, a bar for each backend, on a logarithmic axis.

    Args:
        times: Microseconds per picture by backend, by operator.
        path: The PNG.
        title: Above the plot.

    Raises:
        UserError: If there is nothing to draw.
    """
    if not times:
        raise UserError("times is empty: give at least one operator")
    names = list(next(iter(times.values())))
    place, thick = np.arange(len(times), dtype=float), 0.8 / len(names)
    with figure(6.4, 1.1 + 0.24 * len(times)) as fig:
        ax = fig.subplots()
        for number, name in enumerate(names):
            shift = (number - (len(names) - 1) / 2) * thick
            values = [found[name] for found in times.values()]
            ax.barh(place + shift, values, height=thick, color=PLOT_COLOURS[number % len(PLOT_COLOURS)], label=name)
        ax.set_xscale("log")
        ax.set_yticks(place, list(times), fontsize=8)
        ax.invert_yaxis()
        ax.grid(False, axis="y")
        ax.set_xlabel("microseconds a picture")
        ax.set_title(title, loc="left")
        ax.legend(loc="lower right", fontsize=9)
        spans = [
            f"{name} takes {min(t[name] for t in times.values()):.3g} to {max(t[name] for t in times.values()):.3g}"
            for name in names
        ]
        describe(
            fig,
            f"Bar chart of the microseconds a picture that {len(times)} operators cost by backend: {joined(spans)}.",
        )
        return save_png(fig, path)
