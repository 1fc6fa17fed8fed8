"""Accuracy against cost as it is claimed and as it is executed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from effkit.plots import PLOT_COLOURS, describe, figure, joined, save_png

__all__ = ["Point", "draw_costs"]


class Point(NamedTuple):
    """A model of the paper's table.

    Attributes:
        name: Its name.
        top1: Its accuracy as printed, percent.
        printed: Cost as printed, GMACs.
        executed: What ours executes, GMACs.
        official: What the official formulation executes, GMACs.
        base: Whether it is a base without paths.
    """

    name: str
    top1: float
    printed: float
    executed: float
    official: float
    base: bool


def draw_costs(points: Sequence[Point], path: Path, *, title: str) -> Path:
    """Printed accuracy against printed cost, with a line to what is executed by ours and by the official formulation.

    Args:
        points: The models.
        path: The PNG.
        title: Of the picture.
    """
    with figure(width=7.5, height=4.4) as fig:
        axes = fig.subplots()
        for number, point in enumerate(points):
            axes.plot([point.printed, point.official], [point.top1] * 2, color="0.8", linewidth=1, zorder=1)
            kinds = [("o", point.printed, PLOT_COLOURS[0], "cost as printed")]
            if not point.base:
                kinds.append(("s", point.executed, PLOT_COLOURS[2], "executed, ours"))
                kinds.append(("x", point.official, PLOT_COLOURS[1], "executed, official code"))
            for marker, x, colour, label in kinds:
                first = number == next(i for i, p in enumerate(points) if marker == "o" or not p.base)
                axes.plot([x], [point.top1], marker, color=colour, label=label if first else None)
            axes.annotate(
                point.name, (point.printed, point.top1), textcoords="offset points", xytext=(4, 5), fontsize=8
            )
        axes.set(title=title, xlabel="GMACs a picture", ylabel="ImageNet top-1 as printed, %", xscale="log")
        axes.legend(loc="lower right")
        gaps = [f"{p.name} {p.printed:.1f}, {p.executed:.1f} and {p.official:.1f}" for p in points if not p.base]
        describe(
            fig,
            "Scatter chart of accuracy as printed against cost in GMACs: as printed, executed by ours and by the "
            f"official code {joined(gaps)}.",
        )
        return save_png(fig, path)
