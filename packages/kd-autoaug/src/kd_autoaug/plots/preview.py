"""Grids of pictures: operators by magnitudes, and what a policy makes of several pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from effkit.plots import describe, figure, joined, save_png
from kd_autoaug.analysis.cell import magnitude_name
from kd_autoaug.analysis.views import PolicyView
from kd_autoaug.plots.pictures import show

__all__ = ["plot_operators", "plot_policy_views"]


def plot_operators(
    views: Tensor,
    operators: Sequence[str],
    magnitudes: Sequence[float],
    path: str | os.PathLike[str],
    title: str = "",
) -> Path:
    """Draw the grid, operators down, magnitudes across.

    Args:
        views: Of :func:`~kd_autoaug.analysis.views.operator_views`.
        operators: Their names.
        magnitudes: Their magnitudes.
        path: The PNG.
        title: Above the grid.
    """
    rows, columns = len(operators), len(magnitudes)
    with figure(1.15 + 0.95 * columns, 0.55 + 0.95 * rows) as fig:
        fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)  # type: ignore[union-attr, call-arg]
        fig.suptitle(title, x=0.01, ha="left", fontsize=11)
        axes = fig.subplots(rows, columns, squeeze=False)
        for i, name in enumerate(operators):
            for j, m in enumerate(magnitudes):
                show(axes[i, j], views[i, j])
                if i == 0:
                    axes[i, j].set_title(f"M={magnitude_name(m)}", fontsize=9)
            axes[i, 0].set_ylabel(name.replace("_", " "), fontsize=9, rotation=0, ha="right", va="center")
        names = joined([name.replace("_", " ") for name in operators])
        levels = joined([magnitude_name(m) for m in magnitudes])
        describe(
            fig,
            f"Grid of views of one picture{f' ({title})' if title else ''}, a row for each operator ({names}) and a "
            f"column for each magnitude ({levels}).",
        )
        return save_png(fig, path, dpi=110, photos=True)


def plot_policy_views(
    pictures: Mapping[str, Tensor], drawn: Sequence[Sequence[PolicyView]], path: str | os.PathLike[str], title: str
) -> Path:
    """Draw pictures and their views, one row per picture, the picture itself first.

    Args:
        pictures: uint8 ``(C, H, W)`` by name, all of one size.
        drawn: Of :func:`~kd_autoaug.analysis.views.policy_views`.
        path: The PNG.
        title: Above the grid.
    """
    columns = 1 + len(drawn[0])
    with figure(0.3 + 0.98 * columns, 0.5 + 1.12 * len(pictures)) as fig:
        fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.02)  # type: ignore[union-attr, call-arg]
        fig.suptitle(title, x=0.01, ha="left", fontsize=11)
        axes = fig.subplots(len(pictures), columns, squeeze=False)
        for row, picture, views in zip(axes, pictures.values(), drawn, strict=True):
            show(row[0], picture)
            row[0].set_xlabel("picture", fontsize=7, labelpad=1)
            for ax, view in zip(row[1:], views, strict=True):
                show(ax, view.pixels)
                words = view.operators.replace("_", " ").replace(", ", "\n")
                ax.set_xlabel(words, fontsize=6.5, labelpad=1, linespacing=0.95)
        count = f"{len(pictures)} picture{'s' * (len(pictures) != 1)}"
        describe(
            fig,
            f"Grid of {count} ({joined(list(pictures))}), each followed by {len(drawn[0])} random views under {title}, "
            "with the operators that made them below.",
        )
        return save_png(fig, path, dpi=110, photos=True)
