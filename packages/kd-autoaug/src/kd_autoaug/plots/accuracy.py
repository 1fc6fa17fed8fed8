"""Accuracy by the strength of the training augmentation, as one PNG."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from effkit.errors import UserError
from effkit.plots import describe, figure, joined, save_png
from kd_autoaug.analysis.cell import magnitude_name

__all__ = ["plot_accuracy"]


def plot_accuracy(
    path: str | os.PathLike[str],
    magnitudes: Sequence[float],
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str = "Accuracy on clean pictures, by the strength of the training augmentation",
    ylabel: str = "test accuracy, %",
    level: float = 0.95,
) -> Path:
    """Accuracy against magnitude with intervals, one curve per way of training.

    Args:
        path: The PNG.
        magnitudes: Common to all curves.
        curves: By name: means and half-widths of their intervals, one per magnitude; NaN leaves a point out.
        title: Above the plot.
        ylabel: Of the axis.
        level: Of the intervals; named in the plot.

    Raises:
        UserError: If there are no curves, or one has another length.
    """
    if not curves:
        raise UserError("curves is empty: give at least one")
    with figure(6.4, 3.8) as fig:
        ax = fig.subplots()
        x = np.arange(len(magnitudes), dtype=float)
        shifts = np.linspace(-0.05, 0.05, len(curves)) if len(curves) > 1 else [0.0]
        for (name, (mean, half)), shift in zip(curves.items(), shifts, strict=True):
            if len(mean) != len(x) or len(half) != len(x):
                raise UserError(f"curves[{name!r}] has {len(mean)} means and {len(half)} half-widths for {len(x)} M")
            there = np.isfinite(np.asarray(mean, dtype=float))
            ax.errorbar(
                (x + shift)[there], np.asarray(mean, dtype=float)[there], np.asarray(half, dtype=float)[there],
                fmt="o-", markersize=4.5, capsize=3, elinewidth=1.2, label=name,
            )  # fmt: skip
        ax.set_xticks(x, [magnitude_name(m) for m in magnitudes])
        ax.set_xlabel("magnitude M")
        ax.set_ylabel(ylabel)
        ax.set_title(title, loc="left")
        ax.legend(loc="best", fontsize=9, title=f"{100 * level:g} % intervals", title_fontsize=8)
        said = [f"{name} {_ends(magnitudes, mean)}" for name, (mean, _) in curves.items()]
        describe(fig, f"Line chart of {ylabel}, by the magnitude of the training augmentation: {joined(said)}.")
        return save_png(fig, path)


def _ends(magnitudes: Sequence[float], mean: Sequence[float]) -> str:
    """Where a curve begins and ends."""
    there = [i for i, value in enumerate(mean) if np.isfinite(value)]
    if not there:
        return "was not measured"
    said = [f"{mean[i]:.1f} at M={magnitude_name(magnitudes[i])}" for i in dict.fromkeys([there[0], there[-1]])]
    return "from " + " to ".join(said) if len(said) > 1 else said[0]
