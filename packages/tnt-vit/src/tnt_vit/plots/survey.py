"""Pictures of a survey: accuracy against cost, the survey's ranks beside ours, the sweep, diversity, CKA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effkit.plots import PLOT_COLOURS, describe, figure, joined, save_png

__all__ = ["draw_cka", "draw_diversity", "draw_front", "draw_slopes", "draw_sweep", "pareto"]

_LINES = ("-", "--", ":", "-.")
_MOST_NAMES = 14  # beside points; of more, only those of the front are named


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the points that no other beats in both numbers (more is better), from the lowest first number."""
    best = [
        name
        for name, (x, y) in points.items()
        if not any((a >= x and b >= y) and (a, b) != (x, y) for a, b in points.values())
    ]
    return sorted(best, key=lambda name: points[name])


def _plain_log(*axes: Any) -> None:
    """Logarithmic axes with numbers as people write them, at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for axis in axes:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:,g}")
        axis.set_minor_formatter(NullFormatter())


def draw_front(
    points: Mapping[str, tuple[float, float, str]], path: Path, *, cost: str, less_is_better: bool, title: str
) -> Path:
    """Accuracy against a cost, a colour a group, and the front of what nothing beats in both.

    Args:
        points: Name to cost, accuracy and group.
        path: The PNG.
        cost: Of the axis, with its unit.
        less_is_better: Whether a small cost is a good one.
        title: Of the picture.
    """
    groups = list(dict.fromkeys(group for _, _, group in points.values()))
    front = pareto({name: (-x if less_is_better else x, y) for name, (x, y, _) in points.items()})
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
        _plain_log(axes.xaxis)
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
        _plain_log(axes.yaxis)
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


def _lines(axes: Any, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    for number, (name, (x, y)) in enumerate(curves.items()):
        style = _LINES[number // len(PLOT_COLOURS) % len(_LINES)]
        colour = PLOT_COLOURS[number % len(PLOT_COLOURS)]
        axes.plot(x, y, marker="o", markersize=3, linestyle=style, color=colour, label=name, linewidth=1.4)


def draw_sweep(sweeps: Mapping[str, Sequence[tuple[int, float]]], path: Path, *, title: str) -> Path:
    """Images per second by batch size, a line a network.

    Args:
        sweeps: Name to (batch, images/s).
        path: The PNG.
        title: Of the picture.
    """
    with figure(width=7.5, height=4.4) as fig:
        axes = fig.subplots()
        _lines(axes, {name: tuple(zip(*cases, strict=True)) for name, cases in sweeps.items()})  # type: ignore[misc]
        axes.set(title=title, xlabel="batch", ylabel="images/s", yscale="log")
        axes.set_xscale("log", base=2)
        batches = sorted({batch for cases in sweeps.values() for batch, _ in cases})
        axes.set_xticks(batches, [str(b) for b in batches])
        _plain_log(axes.yaxis)
        fig.legend(loc="outside right upper", fontsize=7.5)
        best = sorted(((max(s for _, s in cases), name) for name, cases in sweeps.items()), reverse=True)
        said = joined([f"{name} {speed:,.4g}" for speed, name in best], most=4)
        describe(fig, f"Line chart of images per second by batch size of {len(sweeps)} networks; best of each: {said}.")
        return save_png(fig, path)


_MEASURES = {
    "cosine": "mean cosine between tokens",
    "relative_residual": "distance to equal tokens, relative",
    "effective_rank": "effective rank",
}


def draw_diversity(networks: Mapping[str, Sequence[Mapping[str, float]]], path: Path, *, title: str) -> Path:
    """How different tokens are by depth, a panel a measure, a line a network.

    Args:
        networks: Name to one row a block.
        path: The PNG.
        title: Of the picture.
    """
    with figure(width=11.5, height=4.2) as fig:
        panels = fig.subplots(1, len(_MEASURES))
        for axes, (key, label) in zip(panels, _MEASURES.items(), strict=True):
            curves = {
                n: (np.linspace(0, 100, len(rows)).tolist(), [r[key] for r in rows]) for n, rows in networks.items()
            }
            _lines(axes, curves)
            axes.set(title=label, xlabel="depth, % of the blocks")
        panels[-1].set_yscale("log")
        handles, labels = panels[0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside right upper", fontsize=7.5)
        fig.suptitle(title)
        ends = [f"{n} from {rows[0]['cosine']:.2f} to {rows[-1]['cosine']:.2f}" for n, rows in networks.items()]
        describe(
            fig, f"Line charts of how alike tokens are by depth; mean cosine, first to last block: {joined(ends)}."
        )
        return save_png(fig, path)


def draw_cka(
    matrices: Mapping[str, Sequence[Sequence[float | None]]],
    path: Path,
    *,
    title: str,
    names: Sequence[str] | None = None,
) -> Path:
    """CKA as heat maps: of the blocks of networks, or of networks with each other.

    Args:
        matrices: A panel each.
        path: The PNG.
        title: Of the picture.
        names: Of the rows of a single panel; blocks are numbered.
    """
    columns = min(4, len(matrices))
    lines = -(-len(matrices) // columns)
    side = 5.2 if names else 2.6
    with figure(width=max(6.0, side * columns + 0.8), height=side * lines + 0.8) as fig:
        panels = fig.subplots(lines, columns, squeeze=False).ravel()
        for axes in panels[len(matrices) :]:
            axes.set_axis_off()
        image = None
        for axes, (name, matrix) in zip(panels, matrices.items(), strict=False):
            values = np.array([[np.nan if v is None else v for v in row] for row in matrix], dtype=float)
            image = axes.imshow(values, vmin=0, vmax=1, cmap="magma", interpolation="nearest")
            axes.grid(False)
            axes.set_title(name, fontsize=9)
            if names is not None:
                axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
                axes.set_yticks(range(len(names)), names, fontsize=7)
        fig.colorbar(image, ax=panels.tolist(), label="linear CKA", shrink=0.8)  # type: ignore[arg-type]
        fig.suptitle(title)
        describe(fig, f"Heat maps of linear CKA, {title}: {_least_alike(matrices, names)}.")
        return save_png(fig, path)


def _least_alike(matrices: Mapping[str, Sequence[Sequence[float | None]]], names: Sequence[str] | None) -> str:
    if names is not None:
        (matrix,) = matrices.values()
        places = [(i, j) for i in range(len(names)) for j in range(i)]
        pairs = [(v, names[i], names[j]) for i, j in places if (v := matrix[i][j]) is not None and np.isfinite(v)]
        if not pairs:
            return "no two of them vary"
        low, high = min(pairs), max(pairs)
        return f"{high[1]} and {high[2]} are most alike at {high[0]:.2f}, {low[1]} and {low[2]} least at {low[0]:.2f}"
    ends = [f"{name} {v:.2f}" for name, matrix in matrices.items() if (v := matrix[-1][0]) is not None]
    return "first and last block of " + joined(ends or ["none"])
