"""The needle test as a map: where in how long a context is what was hidden found?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effkit.errors import UserError
from effkit.plots import joined
from esa_attention.plots.canvas import QUIET, Curves, as_array, canvas, check_rising, label, save, short_length

__all__ = ["needle_heatmap"]

_MAP = "viridis"  # perceptually uniform, and told apart by colour-blind readers
_PER_ROW = 4
_CONTEXT = "#D55E00"


def needle_heatmap(
    scores: Curves,
    lengths: Sequence[int],
    depths: Sequence[float],
    path: str | os.PathLike[str],
    *,
    trained_context: int | None = None,
    title: str = "Needle found, by length and depth",
) -> Path:
    """Draw one panel a method: columns are lengths, rows are depths, bright is found.

    Args:
        scores: ``(len(depths), len(lengths))`` in 0..1 by method; NaN where nothing was measured.
        lengths: Tokens of the contexts, each once; drawn in rising order.
        depths: Places of the needle, 0 (beginning) to 1, each once; drawn in rising order.
        path: The PNG.
        trained_context: Marks what is longer than the model was trained on.
        title: Of the picture.

    Returns:
        The path.

    Raises:
        UserError: If a shape does not fit, a score is not in 0..1, or there is no method.
    """
    columns, places = as_array("lengths", lengths, 1), as_array("depths", depths, 1)
    by_length, by_depth = np.argsort(columns), np.argsort(places)
    columns, places = check_rising("lengths", columns[by_length], 1), check_rising("depths", places[by_depth], 0)
    if places[-1] > 1:
        raise UserError(f"depths must be in 0..1, got {places[-1]:g}")
    shape = (len(places), len(columns))
    panels = {name: values[by_depth][:, by_length] for name, values in _check(scores, shape).items()}
    down = -(-len(panels) // _PER_ROW)
    across = -(-len(panels) // down)
    cell = min(0.62, 8.0 / (across * shape[1]))
    width = max(4.6, across * (cell * shape[1] + 0.25) + 1.5)
    row = max(0.9, min(0.36, 3.2 / shape[0]) * shape[0])
    with canvas(title, width, 0.75 + down * (row + 0.75)) as fig:
        axes = np.atleast_1d(fig.subplots(down, across, sharex=True, sharey=True, squeeze=False)).ravel()
        mesh: Any = None
        for i, (name, values) in enumerate(panels.items()):
            mesh = _panel(axes[i], values, shape, numbers=cell > 0.3)
            axes[i].set_title(f"{label(name)}, mean {100 * np.nanmean(values):.0f} %", loc="left", fontsize=10)
            if trained_context is not None:
                _mark_context(axes[i], columns, trained_context)
        if trained_context is not None:
            words = f"the model was trained on up to {trained_context:,} tokens"
            if columns[0] <= trained_context < columns[-1]:
                words = f"vertical line: {words}"
            fig.supxlabel(words, x=0.01, ha="left", fontsize=8.5, color=_CONTEXT)
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        _ticks(axes, len(panels), across, columns, places, cell)
        bar = fig.colorbar(mesh, ax=list(axes[: len(panels)]), pad=0.015, aspect=12 * down, shrink=0.95)
        bar.set_ticks([0, 0.5, 1], labels=["0 %", "50 %", "100 %"])
        bar.outline.set_visible(False)  # type: ignore[operator]
        means = joined([f"{label(name)} {100 * np.nanmean(values):.0f} %" for name, values in panels.items()])
        reach = f"{len(columns)} lengths up to {short_length(columns[-1])} tokens"
        seen = f"Map of how often a hidden needle is found, by depth and length ({reach}); on average: {means}."
        return save(fig, path, seen)


def _check(scores: Curves, shape: tuple[int, int]) -> dict[str, Any]:
    if not scores:
        raise UserError("scores must hold at least one method, got none")
    panels = {}
    for name, values in scores.items():
        array = as_array(f"scores[{name!r}]", values, 2)
        if array.shape != shape:
            raise UserError(f"scores[{name!r}] must have the shape (depths, lengths) = {shape}, got {array.shape}")
        if np.isnan(array).all() or bool(((array < 0) | (array > 1)).any()):
            raise UserError(
                f"scores[{name!r}] must be in 0..1 (NaN where not measured), got {array.ravel().tolist()[:4]}"
            )
        panels[name] = array
    return panels


def _panel(ax: Any, values: Any, shape: tuple[int, int], numbers: bool) -> Any:
    ax.set_facecolor("#DDDDDD")  # shows through where nothing was measured
    mesh = ax.pcolormesh(
        np.ma.masked_invalid(values), cmap=_MAP, vmin=0, vmax=1, edgecolors="white", linewidth=1.2 if numbers else 0.5
    )
    ax.set_ylim(shape[0], 0)
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.tick_params(length=0)
    if numbers:
        for y, x in np.argwhere(np.isfinite(values)):
            value = values[y, x]
            colour = "white" if value < 0.6 else "black"
            ax.text(x + 0.5, y + 0.5, f"{100 * value:.0f}", ha="center", va="center", fontsize=7.5, color=colour)
    return mesh


def _mark_context(ax: Any, columns: Any, trained_context: int) -> None:
    beyond = int((columns <= trained_context).sum())
    if 0 < beyond < len(columns):
        ax.axvline(beyond, color=_CONTEXT, linewidth=1.8)


def _ticks(axes: Any, count: int, across: int, columns: Any, places: Any, cell: float) -> None:
    names = [short_length(n) for n in columns]
    every = max(1, int(np.ceil((0.08 * max(map(len, names)) + 0.06) / cell)))
    x_at = np.arange(len(columns))[::-1][::every][::-1]
    y_at = np.arange(len(places))[:: max(1, -(-len(places) // 11))]
    for i in range(count):
        axes[i].set_xticks(x_at + 0.5, [names[j] for j in x_at], fontsize=8.5)
        axes[i].set_yticks(y_at + 0.5, [f"{100 * places[j]:.0f} %" for j in y_at], fontsize=8.5)
        axes[i].tick_params(labelbottom=i + across >= count)
        if i % across == 0:
            axes[i].set_ylabel("depth", color=QUIET)
        if i + across >= count:
            axes[i].set_xlabel("tokens", color=QUIET)
