"""Recall of the compressed choice, layer by layer (the paper's Figure 2)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from effkit.errors import UserError
from effkit.plots import joined
from esa_attention.plots.canvas import (
    QUIET,
    Curves,
    canvas,
    check_curves,
    colours,
    label,
    label_ends,
    last_point,
    note,
    save,
)

__all__ = ["recall_curves"]


def recall_curves(
    recalls: Curves,
    path: str | os.PathLike[str],
    *,
    threshold: float | None = 0.9,
    title: str = "Recall of the exact choice, by layer",
    remark: str = "",
) -> Path:
    """Draw recall against the layer, one line a calibration.

    Args:
        recalls: ``(layers,)`` in 0..1 by calibration, as :func:`~esa_attention.calibration.recall.per_layer_recall`
            returns it.
        path: The PNG.
        threshold: A dashed line; the paper speaks of 90 %.
        title: Of the picture.
        remark: A line above the axes: model, text, size of the choice.

    Returns:
        The path.

    Raises:
        UserError: If lengths differ or a value is not in 0..1.
    """
    checked = check_curves("recalls", recalls, least=0)
    for name, values in checked.items():
        if np.nanmax(values) > 1:
            raise UserError(f"recalls[{name!r}] must be in 0..1, got {np.nanmax(values):g}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"threshold must be in 0..1, got {threshold}")
    palette = colours(list(checked))
    layers = np.arange(len(next(iter(checked.values()))))
    with canvas(title, 7.2, 3.8) as fig:
        ax = fig.subplots()
        note(ax, remark)
        ends = []
        for name, values in checked.items():
            ax.plot(layers, 100 * values, color=palette[name], marker="o", markersize=4, clip_on=False)
            x, y = last_point(layers, 100 * values)
            ends.append((x, y, f"{label(name)}, mean {np.nanmean(100 * values):.0f} %", palette[name]))
        lowest = min(float(np.nanmin(v)) for v in checked.values())
        if threshold is not None:
            ax.axhline(100 * threshold, color=QUIET, linewidth=1, linestyle=(0, (5, 4)), zorder=1)
            lowest = min(lowest, threshold)
        ax.set_ylim(max(0, 10 * np.floor(10 * lowest - 0.3)), 100)
        ax.set_xlim(-0.3 if len(layers) > 1 else -0.5, len(layers) - 1 + (0.3 if len(layers) > 1 else 0.5))
        ax.set_xticks(layers[:: max(1, -(-len(layers) // 16))])
        ax.set_xlabel("layer")
        ax.set_ylabel("recall, %")
        label_ends(ax, ends)
        said = [
            f"{label(name)} {100 * np.nanmean(values):.0f} % on average and {100 * np.nanmin(values):.0f} % at least"
            for name, values in checked.items()
        ]
        seen = f"Line chart of the recall of the exact choice in {len(layers)} layers by calibration: {joined(said)}."
        return save(fig, path, seen)
