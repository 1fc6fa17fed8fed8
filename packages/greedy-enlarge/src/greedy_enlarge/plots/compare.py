"""Accuracies of networks of equal MACs, seed by seed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from effkit.plots import PLOT_COLOURS, describe, figure, save_png

__all__ = ["draw_compare"]


def draw_compare(accuracies: Mapping[str, Sequence[float]], macs: Mapping[str, int], path: Path, title: str) -> Path:
    """One column of points a network, against its MACs; a bar at the mean.

    Args:
        accuracies: Percent, one a seed, by name.
        macs: By name.
        path: PNG file to write.
        title: Of the picture.
    """
    with figure(6.0, 3.6) as fig:
        ax = fig.subplots()
        for i, values in enumerate(accuracies.values()):
            colour = PLOT_COLOURS[i % len(PLOT_COLOURS)]
            ax.plot([i] * len(values), values, "o", color=colour, markersize=4, alpha=0.7)
            mean = statistics.fmean(values)
            ax.plot([i - 0.2, i + 0.2], [mean, mean], color=colour, linewidth=2.5)
        labels = [f"{name}\n{macs[name] / 1e3:,.0f} kMACs" for name in accuracies]
        ax.set_xticks(range(len(accuracies)), labels)
        ax.set_ylabel("test accuracy, %")
        ax.set_title(title)
        means = ", ".join(f"{name} {statistics.fmean(values):.1f} %" for name, values in accuracies.items())
        describe(fig, f"Test accuracies of networks of equal MACs, a point a seed; means: {means}.")
        return save_png(fig, path)
