"""Singular values behind a compressed dimension, and what each dimension leaves unexplained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effkit.errors import UserError
from esa_attention.plots.canvas import BLUE, QUIET, VERMILION, as_array, canvas, note, save

__all__ = ["spectrum_curves"]

_FLOOR = 1e-12  # relative; below it a value is rounding


def spectrum_curves(
    spectra: Any,
    rank: int | Sequence[int],
    path: str | os.PathLike[str],
    *,
    title: str = "Spectrum of the scores, by layer",
    remark: str = "",
) -> Path:
    r"""Draw :math:`s_i`, and beside it the squared error that a dimension leaves, :math:`\sum_{i > r} s_i^2`.

    Args:
        spectra: Singular values, falling, ``(layers, d)`` or ``(d,)`` for one layer.
        rank: The chosen dimension, or one a layer.
        path: The PNG.
        title: Of the picture.
        remark: A line above the axes.

    Returns:
        The path.

    Raises:
        UserError: If values are negative, not finite or do not fall, or a rank is not in ``1..d``.
    """
    values = _rows(spectra)
    layers, width = values.shape
    if not np.isfinite(values).all() or bool((values < 0).any()) or bool((np.diff(values, axis=1) > 0).any()):
        raise UserError("spectra must be finite, at least 0 and falling, got some that are not")
    if not (values[:, 0] > 0).all():
        raise UserError("spectra must begin with a positive value, got 0")
    ranks = [rank] * layers if isinstance(rank, int) else list(rank)
    if len(ranks) != layers:
        raise UserError(f"rank must be one number or one a layer ({layers}), got {len(ranks)}")
    for number in ranks:
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= width:
            raise UserError(f"rank must be a whole number in 1..{width}, got {number!r}")
    relative = np.maximum(values / values[:, :1], _FLOOR)
    energy = np.square(values / values[:, :1])
    left = energy[:, ::-1].cumsum(axis=1)[:, ::-1]  # left[i]: what dimensions i, i + 1, ... hold
    lost = np.concatenate((left[:, 1:], np.zeros((layers, 1))), axis=1) / left[:, :1]
    return _draw(relative, np.maximum(lost, _FLOOR), ranks, path, title, remark)


def _rows(spectra: Any) -> Any:
    """One spectrum a row."""
    if not len(spectra):
        raise UserError("spectra must hold at least one layer, got none")
    rows = [as_array("spectra", row, 1) for row in ([spectra] if np.ndim(spectra[0]) == 0 else spectra)]
    lengths = {len(row) for row in rows}
    if len(lengths) != 1:
        raise UserError(f"spectra must be as long for every layer, got lengths {sorted(lengths)}")
    return np.stack(rows)


def _draw(relative: Any, lost: Any, ranks: list[int], path: str | os.PathLike[str], title: str, remark: str) -> Path:
    import matplotlib

    layers, width = relative.shape
    index = np.arange(1, width + 1)
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, layers)) if layers > 1 else [BLUE]
    with canvas(title, 8.4, 3.8) as fig:
        axes = fig.subplots(1, 2)
        note(axes[0], remark)
        panels = (
            (axes[0], relative, "singular value, of the largest", "i"),
            (axes[1], 100 * lost, "squared score left over, %", "dimensions kept"),
        )
        for ax, rows, words, across in panels:
            for layer in range(layers):
                ax.plot(index, rows[layer], color=shades[layer], linewidth=1.6 if layers < 4 else 1.0)
            ax.set_yscale("log")
            ax.set_ylabel(words)
            ax.set_xlabel(across)
            ax.set_xlim(0, width + 1)
            # What has fallen to rounding says nothing and would stretch the axis.
            ax.set_ylim(bottom=max(float(rows[:, -2 if width > 1 else -1].min()) / 3, float(rows.max()) * 1e-9))
            if len(set(ranks)) == 1:
                ax.axvline(ranks[0], color=VERMILION, linewidth=1.2, linestyle=(0, (4, 3)), zorder=4)
            for layer, rank in enumerate(ranks if len(set(ranks)) > 1 or layers < 4 else []):
                ax.plot(rank, rows[layer, rank - 1], "o", color=VERMILION, markersize=4.5, zorder=5)
        left_over = _mark_rank(axes[1], lost, ranks)
        if layers > 1:
            _layer_bar(fig, list(axes), layers)
        seen = (
            f"Two line charts for {layers} layer{'s' * (layers != 1)}: singular values of the scores, falling over "
            f"{width} dimensions, and the squared score that a number of dimensions leaves; {left_over}."
        )
        return save(fig, path, seen)


def _mark_rank(ax: Any, lost: Any, ranks: list[int]) -> str:
    """Say what the chosen dimension leaves; returns the words."""
    chosen = [100 * lost[layer, rank - 1] for layer, rank in enumerate(ranks)]
    low, high = min(ranks), max(ranks)
    which = f"rank {low}" if low == high else f"ranks {low} to {high}"
    amount = f"{max(chosen):.2g} %" if len(chosen) == 1 else f"{min(chosen):.2g} to {max(chosen):.2g} %"
    words = f"{which}: {amount} left over"
    ax.set_title(words, loc="left", fontsize=9, color=VERMILION, pad=6)
    return words


def _layer_bar(fig: Any, axes: list[Any], layers: int) -> None:
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, 256))
    bar = fig.colorbar(
        ScalarMappable(Normalize(0, layers - 1), ListedColormap(shades)), ax=axes, pad=0.015, aspect=30, shrink=0.95
    )
    bar.set_label("layer", color=QUIET)
    bar.outline.set_visible(False)
    bar.set_ticks([0, layers - 1] if layers < 8 else sorted({0, (layers - 1) // 2, layers - 1}))
