"""Pictures of a survey's costs: accuracy against them, the survey's ranks beside ours, the sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effkit.plots import PLOT_COLOURS, describe, figure, joined, save_png

__all__ = ["draw_front", "draw_lines", "draw_slopes", "draw_sweep", "plain_log"]

_LINES = ("-", "--", ":", "-.")
_MOST_NAMES = 14  # beside points; of more, only those of the front are named


def plain_log(*axes: Any) -> None:
    """Logarithmic axes with numbers as people write them, at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for axis in axes:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:,g}")
        axis.set_minor_formatter(NullFormatter())


def draw_front(
    points: Mapping[str, tuple[float, float, str]], path: Path, *, front: Sequence[str], cost: str, title: str
) -> Path:
    """Accuracy against a cost, a colour a group, and the front of what nothing beats in both.

    Args:
        points: Name to cost, accuracy and group.
        path: The PNG.
        front: Names of what nothing beats in both, from the smallest to the largest cost.
        cost: Of the axis, with its unit.
        title: Of the picture.
    """
    groups = list(dict.fromkeys(group for _, _, group in points.values()))
    with figure(width=7.5, height=4.6) as fig:
        axes = fig.subplots()
        for colour, group in zip(PLOT_COLOURS, groups, strict=False):
            mine = [(x, y) for x, y, g in points.values() if g == group]
            xs, ys = zip(*mine, strict=True)
            axes.scatter(xs, ys, s=34, color=colour, label=group)
        line = [points[name][:2] for name in front]
        axes.plot(*zip(*line, strict=True), color="#555555", linewidth=1, zorder=0)
        for name, (x, y, _) in points.items():
            if len(points) > _MOST_NAMES and name not in front:
                continue
            axes.annotate(name, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)
        axes.set(title=title, xlabel=cost, ylabel="top-1 on ImageNet-1k, %, published", xscale="log")
        axes.margins(x=0.14, y=0.1)
        plain_log(axes.xaxis)
        axes.legend(fontsize=8)
        describe(
            fig,
            f"Scatter plot of the published accuracy of {len(points)} networks against {cost}; nothing is better in "
            f"both than {joined(front, most=12)}.",
        )
        return save_png(fig, path)


def draw_slopes(values: Mapping[str, tuple[float, float]], path: Path, *, left: str, right: str, title: str) -> Path:
    """Two rankings side by side, a line a network, each side relative to its own geometric mean.

    Args:
        values: Name to the figure on the left and on the right.
        path: The PNG.
        left: What stands on the left.
        right: What stands on the right.
        title: Of the picture.
    """
    both = np.array(list(values.values()))
    relative = both / np.exp(np.log(both).mean(axis=0))
    change = dict(zip(values, (relative[:, 1] / relative[:, 0]).tolist(), strict=True))
    heights = [_apart(relative[:, side]) for side in (0, 1)]
    with figure(width=6.5, height=max(4.2, 0.28 * len(values))) as fig:
        axes = fig.subplots()
        for number, (name, (a, b)) in enumerate(zip(values, relative, strict=True)):
            colour = PLOT_COLOURS[0] if b >= a else PLOT_COLOURS[1]
            axes.plot([0, 1], [a, b], color=colour, marker="o", markersize=4, linewidth=1.4)
            for side, align in ((0, "right"), (1, "left")):
                axes.text(
                    -0.03 if side == 0 else 1.03, heights[side][number], f"{name} {both[number, side]:,.4g}",
                    ha=align, va="center", fontsize=7.5,
                )  # fmt: skip
        axes.set(yscale="log", xlim=(-0.75, 1.75), title=title, ylabel="relative to the geometric mean of the side")
        axes.set_xticks([0, 1], [left, right])
        plain_log(axes.yaxis)
        axes.grid(False, axis="x")
        ranked = sorted(change, key=lambda name: change[name])
        describe(
            fig,
            f"Slope chart of {len(values)} networks, {left} beside {right}, each relative to its mean: {ranked[-1]} "
            f"gained most, by {change[ranked[-1]]:.2f}, and {ranked[0]} fell back most, to {change[ranked[0]]:.2f}.",
        )
        return save_png(fig, path)


def _apart(values: np.ndarray) -> list[float]:
    """Heights of labels on a log axis, moved up where they would stand on each other."""
    least = (np.log(values).max() - np.log(values).min() or 1.0) / 26
    heights, last = [0.0] * len(values), -np.inf
    for i in np.argsort(values):
        last = max(float(np.log(values[i])), last + least)
        heights[i] = float(np.exp(last))
    return heights


def draw_lines(axes: Any, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    """A line a network, told apart by colour and dashes; gaps where a value is none."""
    for number, (name, (x, y)) in enumerate(curves.items()):
        style = _LINES[number // len(PLOT_COLOURS) % len(_LINES)]
        colour = PLOT_COLOURS[number % len(PLOT_COLOURS)]
        axes.plot(
            x,
            np.array(y, dtype=float),
            marker="o",
            markersize=3,
            linestyle=style,
            color=colour,
            label=name,
            linewidth=1.4,
        )


def draw_sweep(sweeps: Mapping[str, Sequence[tuple[int, float]]], path: Path, *, title: str) -> Path:
    """Images per second by batch size, a line a network.

    Args:
        sweeps: Name to (batch, images/s).
        path: The PNG.
        title: Of the picture.
    """
    with figure(width=7.5, height=4.4) as fig:
        axes = fig.subplots()
        draw_lines(axes, {name: tuple(zip(*cases, strict=True)) for name, cases in sweeps.items()})  # type: ignore[misc]
        axes.set(title=title, xlabel="batch", ylabel="images/s", yscale="log")
        axes.set_xscale("log", base=2)
        batches = sorted({batch for cases in sweeps.values() for batch, _ in cases})
        axes.set_xticks(batches, [str(b) for b in batches])
        plain_log(axes.yaxis)
        fig.legend(loc="outside right upper", fontsize=7.5)
        best = sorted(((max(s for _, s in cases), name) for name, cases in sweeps.items()), reverse=True)
        said = joined([f"{name} {speed:,.4g}" for speed, name in best], most=4)
        describe(fig, f"Line chart of images per second by batch size of {len(sweeps)} networks; best of each: {said}.")
        return save_png(fig, path)
