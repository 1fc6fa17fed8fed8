"""Cross-entropy against the length read: does a model stay itself beyond its context?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effkit.errors import UserError
from effkit.plots import joined
from esa_attention.plots.canvas import (
    QUIET,
    Curves,
    canvas,
    check_curves,
    check_rising,
    colours,
    label,
    label_ends,
    last_point,
    length_axis,
    note,
    save,
)

__all__ = ["perplexity_curves"]


def perplexity_curves(
    nats: Curves,
    edges: Sequence[int],
    path: str | os.PathLike[str],
    *,
    trained_context: int | None = None,
    title: str = "Cross-entropy by position in the text",
    remark: str = "",
) -> Path:
    """Draw mean nats per token between neighbouring edges, one line a method.

    Args:
        nats: ``(len(edges) - 1,)`` by method, as :func:`~esa_attention.evaluation.tasks.ppl.bucket_means` returns them.
        edges: Positions, rising, from 0 or more.
        path: The PNG.
        trained_context: A vertical line where the model's training ends.
        title: Of the picture.
        remark: A line above the axes: model and text.

    Returns:
        The path.

    Raises:
        UserError: If a shape does not fit or a value is negative.
    """
    borders = check_rising("edges", edges, 0)
    if len(borders) < 2:
        raise UserError(f"edges must be at least 2, got {borders.tolist()}")
    checked = check_curves("nats", nats, len(borders) - 1, least=0)
    palette = colours(list(checked))
    if borders[0] == 0:  # no place on a logarithmic axis
        borders = np.concatenate(([borders[1] / 2], borders[1:]))
    middles = np.sqrt(borders[:-1] * borders[1:])
    with canvas(title, 7.4, 4.0) as fig:
        ax = fig.subplots()
        note(ax, remark)
        ends = []
        for name, values in checked.items():
            colour = palette[name]
            # Flat over each bucket, which is all that a mean says; the thin line leads the eye.
            ax.hlines(values, borders[:-1], borders[1:], colors=colour, linewidth=2.4, zorder=4 if name == "esa" else 3)
            ax.plot(middles, values, color=colour, linewidth=0.9, alpha=0.6)
            _, y = last_point(middles, values)
            x = borders[1:][np.isfinite(values)][-1]
            ends.append((float(x), y, f"{label(name)}  {y:.2f}", colour))
        length_axis(ax, [b for b in borders[1:] if b <= borders[-1]])
        ax.set_xlim(borders[0] * 0.97, borders[-1] * 1.03)
        ax.margins(y=0.08)
        if trained_context is not None and borders[0] < trained_context < borders[-1]:
            ax.axvline(trained_context, color=QUIET, linewidth=1, linestyle=(0, (5, 4)), zorder=1)
            ax.text(
                trained_context, 0.99, " trained context", transform=ax.get_xaxis_transform(),
                ha="left", va="top", fontsize=8.5, color=QUIET,
            )  # fmt: skip
        ax.set_xlabel("position, tokens")
        ax.set_ylabel("nats per token")
        label_ends(ax, ends)
        said = joined([f"{label(name)} {_first_and_last(values)}" for name, values in checked.items()])
        context = "" if trained_context is None else f", for a model trained on {trained_context:,}"
        seen = f"Line chart of nats per token by position, up to {borders[-1]:,.0f} tokens{context}: {said}."
        return save(fig, path, seen)


def _first_and_last(values: Any) -> str:
    known = values[np.isfinite(values)]
    return f"from {known[0]:.2f} to {known[-1]:.2f}" if len(known) > 1 else f"{known[0]:.2f}"
