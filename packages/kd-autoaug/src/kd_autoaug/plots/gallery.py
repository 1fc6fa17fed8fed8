"""Pictures of an analysis: the views that a teacher got most wrong, and what it answered."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from effkit.errors import UserError
from effkit.plots import describe, figure, joined, save_png
from kd_autoaug.analysis.result import AnalysisResult, Cell, Worst, magnitude_name
from kd_autoaug.plots.pictures import show

__all__ = ["choose_worst", "plot_gallery"]


def choose_worst(result: AnalysisResult, limit: int = 12) -> list[tuple[Cell, Worst]]:
    """The worst view of each operator at its largest magnitude, then the next worst, up to ``limit``.

    Args:
        result: Of ``analyze``.
        limit: At most this many.

    Raises:
        UserError: If ``limit`` is below 1.
    """
    if limit < 1:
        raise UserError(f"limit={limit!r} must be at least 1")
    last = [result.row(name)[-1] for name in dict.fromkeys(c.operator for c in result.cells)]
    # Views of operators that fool nobody would only fill the page.
    harmful = sorted((c for c in last if c.worst), key=lambda c: -_nan_low(c.value("outlier_rate")))
    harmful = [c for c in harmful if c.value("outlier_rate") > 0] or harmful
    depth = max((len(c.worst) for c in harmful), default=0)
    return [(c, c.worst[i]) for i in range(depth) for c in harmful if i < len(c.worst)][:limit]


def _nan_low(value: float) -> float:
    return -1.0 if np.isnan(value) else value


def plot_gallery(result: AnalysisResult, path: str | os.PathLike[str], limit: int = 12) -> Path:
    """Draw the worst views beside the pictures they were made of, with the teacher's first five answers.

    Args:
        result: Of ``analyze``.
        path: The PNG.
        limit: Views to show at most.

    Raises:
        UserError: If the analysis kept no views.
    """
    chosen = choose_worst(result, limit)
    if not chosen:
        raise UserError("the analysis kept no views: run it with worst >= 1 and a teacher that knows some pictures")
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    with figure(3.9 * columns, 0.5 + 1.75 * rows) as fig:
        fig.get_layout_engine().set(w_pad=0.03, h_pad=0.05, wspace=0.02, hspace=0.06)  # type: ignore[union-attr, call-arg]
        fig.suptitle("Views that the teacher got most wrong, and its first answers", x=0.01, ha="left", fontsize=11)
        boxes = fig.subfigures(rows, columns, squeeze=False).ravel()
        for box, (cell, worst) in zip(boxes, chosen, strict=False):
            before, after, answers = box.subplots(1, 3, width_ratios=[1, 1, 1.25])
            show(before, worst.picture)
            show(after, worst.view)
            before.set_title(f"{_name(result, worst.label)}", fontsize=9)
            magnitude = "" if cell.magnitude is None else f", M={magnitude_name(cell.magnitude)}"
            after.set_title(f"{cell.operator.replace('_', ' ')}{magnitude}", fontsize=9)
            _bars(answers, result, worst)
        said = [f"{_name(result, w.label)} taken for {_name(result, w.top[0][0])} under {c.name}" for c, w in chosen]
        describe(
            fig,
            f"Gallery of the {len(chosen)} views that the teacher got most wrong, each beside its picture and the "
            f"teacher's first answers: {joined(said, most=3)}.",
        )
        return save_png(fig, path, photos=True)


def _name(result: AnalysisResult, label: int, most: int = 16) -> str:
    name = result.class_names[label]
    return name if len(name) <= most else name[: most - 1] + "…"


def _bars(ax: Axes, result: AnalysisResult, worst: Worst) -> None:
    """Answers as bars with their names inside; the right one in green."""
    ax.set_axis_off()
    ax.set_xlim(0, 1)
    ax.set_ylim(len(worst.top) - 0.45, -0.55)
    for i, (label, p) in enumerate(worst.top):
        ax.barh(i, p, height=0.78, color="#7CC7A8" if label == worst.label else "#C9D8E6")
        ax.text(0.02, i, f"{_name(result, label)}  {100 * p:.0f} %", va="center", fontsize=8)
