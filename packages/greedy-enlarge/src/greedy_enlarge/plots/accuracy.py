"""Test accuracy against MACs: a searched network beside its start and others of its MACs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from effkit.intervals import mean_interval
from effkit.plots import PLOT_COLOURS, describe, figure, save_png
from effkit.plots.sentence import joined

__all__ = ["Point", "draw_accuracy"]


@dataclass(frozen=True)
class Point:
    """A network in the picture.

    Attributes:
        name: Its name.
        macs: MACs.
        accuracies: Percent, one a seed.
    """

    name: str
    macs: int
    accuracies: tuple[float, ...]


def draw_accuracy(points: Sequence[Point], path: Path) -> Path:
    """Mean accuracies with 95 % intervals against MACs; single seeds as faint points beside them.

    Networks of equal MACs stand side by side, a little apart, so that their intervals can be told from each other.

    Args:
        points: The networks.
        path: PNG file to write.
    """
    most = max(p.macs for p in points)
    spread = 0.03 * most
    near = [p for p in points if p.macs > 0.9 * most]
    with figure(6.2, 3.8) as fig:
        ax = fig.subplots()
        for i, point in enumerate(points):
            colour = PLOT_COLOURS[i % len(PLOT_COLOURS)]
            x = point.macs
            if point in near:
                x = round(most + spread * (near.index(point) - (len(near) - 1) / 2))
            mean, half = mean_interval(point.accuracies)
            beside = (x + spread / 4) / 1e3
            ax.plot([beside] * len(point.accuracies), point.accuracies, ".", color=colour, alpha=0.5)
            bars = None if math.isinf(half) else [[half], [half]]
            ax.errorbar([x / 1e3], [mean], yerr=bars, fmt="o", color=colour, capsize=4, label=point.name)
        ax.set_xlabel("kMACs; networks of equal MACs are drawn side by side")
        ax.set_ylabel("test accuracy, %")
        ax.set_title(f"Fresh seeds on untouched test pictures ({len(points[0].accuracies)} each)")
        fig.legend(loc="outside right center", fontsize=8)
        said = [f"{p.name} {mean_interval(p.accuracies)[0]:.1f} % at {p.macs / 1e3:,.0f} kMACs" for p in points]
        describe(fig, f"Points with 95 % intervals of test accuracy against MACs: {joined(said)}.")
        return save_png(fig, path)
