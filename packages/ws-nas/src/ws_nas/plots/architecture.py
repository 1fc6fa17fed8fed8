"""What a search has learnt about operations, and how it came to it over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effkit.plots import PLOT_COLOURS, describe, figure, save_png
from effkit.plots.sentence import joined

__all__ = ["COURSES", "draw_course", "draw_probabilities"]

COURSES = {
    "alpha_entropy": "mean entropy of an edge, nats",
    "skips": "skip connections derived",
    "eigenvalue": "largest eigenvalue",
    "temperature": "temperature",
    "reward": "reward",
    "entropy": "entropy of the policy, nats",
    "step_size": "step size",
    "stage": "stage",
    "decided": "decisions by perturbation",
}
"""Columns of a run that have a picture, and what they are."""


def draw_probabilities(
    tables: Mapping[str, Sequence[Sequence[float]]], operations: Mapping[str, Sequence[str]], path: Path, title: str
) -> Path:
    """A heat map a table: edges by operations.

    Args:
        tables: Shares ``[edges][operations]``, by the table's name.
        operations: Names of the operations, likewise.
        path: PNG file to write.
        title: Of the picture.
    """
    tallest = max(len(rows) for rows in tables.values())
    with figure(1.2 + 3.4 * len(tables), 1.8 + 0.24 * tallest) as fig:
        axes = fig.subplots(1, len(tables), squeeze=False)[0]
        said: list[str] = []
        for ax, (name, rows) in zip(axes, tables.items(), strict=True):
            image = ax.imshow([list(row) for row in rows], vmin=0.0, vmax=1.0, cmap="viridis", aspect="auto")
            ax.set_xticks(range(len(operations[name])), operations[name], rotation=60, ha="right", fontsize=7)
            ax.set_yticks(range(len(rows)), [str(i) for i in range(len(rows))], fontsize=7)
            ax.set_ylabel("edge")
            ax.set_title(name, fontsize=9)
            for edge, row in enumerate(rows):
                best = max(range(len(row)), key=lambda k: (row[k], -k))
                said.append(f"{operations[name][best]} {row[best]:.2f} on edge {edge} of {name}")
        fig.colorbar(image, ax=list(axes), label="share")
        fig.suptitle(title, fontsize=10)
        describe(fig, f"Heat maps of the shares of operations, the strongest being {joined(said, most=16)}.")
        return save_png(fig, path)


def draw_course(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> Path | None:
    """A panel a column of a run that is in :data:`COURSES`, over epochs.

    Args:
        rows: Of ``metrics.csv``.
        path: PNG file to write.
        title: Of the picture.

    Returns:
        The file; ``None`` where no column is there to draw.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name in COURSES:
            if row.get(name) not in (None, ""):
                found.setdefault(name, []).append((1 + int(row["epoch"]), float(row[name])))
    if not found:
        return None
    with figure(1.0 + 2.9 * len(found), 2.8) as fig:
        axes = fig.subplots(1, len(found), squeeze=False)[0]
        said = []
        for ax, (name, points), colour in zip(axes, found.items(), PLOT_COLOURS * len(found), strict=False):
            ax.plot([e for e, _ in points], [v for _, v in points], "o-", color=colour, markersize=3)
            ax.set_xlabel("epoch")
            ax.set_ylabel(COURSES[name])
            first, last = points[0][1], points[-1][1]
            said.append(f"the {COURSES[name]} from {first:.3g} to {last:.3g} in epoch {points[-1][0]}")
        fig.suptitle(title, fontsize=10)
        describe(fig, f"Lines over epochs of a search: {joined(said)}.")
        return save_png(fig, path)
