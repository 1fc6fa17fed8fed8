"""The picture of a benchmark: a panel a case, a bar a provider, the limit as a line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effkit.errors import UserError
from effkit.plots import PLOT_COLOURS, describe, figure, joined, save_png
from effkit.timing import Timing

__all__ = ["draw_times"]

Panel = tuple[str, Mapping[str, Timing], Mapping[str, float], Mapping[str, float]]
_MOST_PANELS = 12


def draw_times(panels: Sequence[Panel], path: str | os.PathLike[str], *, title: str = "") -> Path:
    """Draw median times with their 20 and 80 % quantiles.

    Args:
        panels: Per case its title, timings by provider, how many times faster than the baseline each is (paired; none
            for the baseline), and the least seconds: under ``floor`` for all providers, or by provider.
        path: The PNG.
        title: Of the whole picture.

    Returns:
        The path.

    Raises:
        UserError: If there is nothing to draw.
    """
    if not panels:
        raise UserError("there is no case to draw")
    shown = panels[:_MOST_PANELS]
    names = list(dict.fromkeys(name for _, timings, _, _ in shown for name in timings))
    colours = {name: PLOT_COLOURS[i % len(PLOT_COLOURS)] for i, name in enumerate(names)}
    heights = [0.45 + 0.3 * len(timings) for _, timings, _, _ in shown]
    with figure(width=7.0, height=0.6 + sum(heights) + 0.35 * len(shown)) as fig:
        axes = fig.subplots(len(shown), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for ax, panel in zip(axes, shown, strict=True):
            _panel(ax, panel, colours)
        axes[-1].set_xlabel("milliseconds a call, median and 20 to 80 %; the grey line is the machine's limit")
        left_out = f" (first {len(shown)} of {len(panels)} cases)" if len(panels) > len(shown) else ""
        fig.suptitle(f"{title}{left_out}", fontsize=11)
        described = joined([_in_words(panel) for panel in shown], most=3)
        describe(fig, f"Bar chart of the median time of a call{f', {title}' if title else ''}: {described}.")
        return save_png(fig, path)


def _in_words(panel: Panel) -> str:
    """The times of a case, from the fastest."""
    title, timings, _, _ = panel
    ranked = sorted(timings, key=lambda name: timings[name].median)
    times = joined([f"{name} {1e3 * timings[name].median:.3g} ms" for name in ranked])
    return f"in the case {title} {times}" if title else times


def _panel(ax: Any, panel: Panel, colours: Mapping[str, str]) -> None:
    title, timings, ratios, limits = panel
    ax.set_title(title, loc="left", fontsize=9)
    rows = list(timings)
    for row, name in enumerate(rows):
        t = timings[name]
        spread = [[1e3 * (t.median - t.p20)], [1e3 * (t.p80 - t.median)]]
        ax.barh(row, 1e3 * t.median, height=0.62, color=colours[name], xerr=spread, error_kw={"elinewidth": 1})
        limit = limits.get(name, limits.get("floor"))
        if limit is not None:
            ax.plot([1e3 * limit] * 2, [row - 0.42, row + 0.42], color="#555555", linewidth=1.6)
        ratio = f"  {ratios[name]:.2f}x" if name in ratios else ""
        ax.annotate(
            f"{1e3 * t.median:.3g} ms{ratio}", (1e3 * t.p80, row), xytext=(5, 0), textcoords="offset points",
            va="center", fontsize=8,
        )  # fmt: skip
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.invert_yaxis()
    ax.grid(False, axis="y")
    ax.set_xlim(0, 1.28e3 * max(t.p80 for t in timings.values()))
