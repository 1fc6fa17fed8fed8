"""Which tokens are chosen, step by step, and how much of a choice outlives a step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from effkit.errors import UserError
from effkit.plots import joined
from esa_attention.attention.segments import segments
from esa_attention.plots.canvas import (
    BLUE,
    ORANGE,
    PINK,
    QUIET,
    Curves,
    as_array,
    canvas,
    check_curves,
    colours,
    label,
    label_ends,
    note,
    save,
)

__all__ = ["consecutive_overlap", "overlap_curves", "selection_map"]

_BINS = 360  # rows of the picture
_CURRENT = "#F7F7F7"


def selection_map(
    selections: Sequence[Any],
    positions: Sequence[int],
    path: str | os.PathLike[str],
    *,
    num_initial: int,
    num_local: int,
    title: str = "Tokens read, step by step",
    remark: str = "",
) -> Path:
    """Draw the chosen middle tokens of every step between the initial and the local band.

    Args:
        selections: For every step the positions of the tokens chosen, ``(k,)`` each.
        positions: For every step its own position: how many tokens were read before, rising.
        path: The PNG.
        num_initial: Tokens at the beginning that are always read.
        num_local: Tokens before the step that are always read.
        title: Of the picture.
        remark: A line above the axes: model, layer, size of the choice.

    Returns:
        The path.

    Raises:
        UserError: If steps and positions are not as many, or a token is not in the middle part of its step.
    """
    current = as_array("positions", positions, 1).astype(np.int64)
    if len(selections) != len(current) or len(current) == 0:
        raise UserError(f"selections must be one a position ({len(current)}) and at least one, got {len(selections)}")
    if current[0] < 1 or bool((np.diff(current) < 0).any()):
        raise UserError(f"positions must rise from at least 1, got {current.tolist()[:8]}")
    top = int(current[-1]) + 1
    bins = min(_BINS, top)
    cuts = [segments(int(c), int(c) + 1, num_initial, num_local) for c in current]
    counts = np.zeros((bins, len(current)))
    for step, (chosen, cut) in enumerate(zip(selections, cuts, strict=True)):
        tokens = as_array(f"selections[{step}]", chosen, 1).astype(np.int64)
        if len(tokens) and not (cut.initial_end <= tokens.min() and tokens.max() < cut.local):
            raise UserError(
                f"selections[{step}] must be middle tokens in {cut.initial_end}..{cut.local - 1}, "
                f"got {int(tokens.min())}..{int(tokens.max())}"
            )
        np.add.at(counts[:, step], tokens * bins // top, 1)
    share = np.minimum(counts * bins / top, 1)
    with canvas(title, 7.8, 4.6) as fig:
        ax = fig.subplots()
        note(ax, remark)
        _bands(ax, cuts, top)
        image = _raster(ax, share, top, fine=bins == top)
        if bins < top:
            bar = fig.colorbar(image, ax=ax, location="bottom", shrink=0.35, aspect=22, pad=0.02, anchor=(0.0, 0.0))
            bar.set_ticks([0, 0.5, 1], labels=["0 %", "50 %", "100 %"])
            bar.ax.tick_params(labelsize=8)
            bar.set_label("of the tokens in a row of the picture", fontsize=8, color=QUIET)
        ax.set_xlim(-0.5, len(current) - 0.5)
        ax.set_ylim(0, top)
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.grid(False)
        ax.set_xlabel("step")
        ax.set_ylabel("position of the token read")
        last, edge = cuts[-1], len(current) - 0.5
        ends = [(edge, (last.local + last.current) / 2, "local", "#A66F00")]
        if last.initial_end:
            ends.append((edge, last.initial_end / 2, "initial", "#9C4477"))
        if last.local > last.initial_end:
            ends.append((edge, (last.initial_end + last.local) / 2, "selected from\nthe middle", BLUE))
        label_ends(ax, ends)
        picked = sum(len(chosen) for chosen in selections) / len(selections)
        seen = (
            f"Map of the tokens read in {len(current)} steps up to position {current[-1]:,}: {num_initial:,} initial "
            f"and {num_local:,} local ones always, and between them {picked:.0f} chosen ones a step."
        )
        return save(fig, path, seen)


def _bands(ax: Any, cuts: Sequence[Any], top: int) -> None:
    """What is read in any case, as areas; a step is as wide as its column."""
    edges = np.arange(len(cuts) + 1) - 0.5

    def area(low: list[int], high: list[int], colour: str, alpha: float) -> None:
        steps = [np.append(v, v[-1]) for v in (low, high)]
        ax.fill_between(edges, *steps, step="post", color=colour, alpha=alpha, linewidth=0, zorder=0)

    area([c.initial_end for c in cuts], [c.local for c in cuts], "#EDEDED", 1)
    area([0] * len(cuts), [c.initial_end for c in cuts], PINK, 0.75)
    area([c.local for c in cuts], [c.current for c in cuts], ORANGE, 0.55)


def _raster(ax: Any, share: Any, top: int, fine: bool) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    shades = [BLUE, BLUE] if fine else ["#9CC7E4", BLUE, "#00263D"]
    colour_map = LinearSegmentedColormap.from_list("chosen", shades)
    return ax.imshow(
        np.ma.masked_equal(share, 0), cmap=colour_map, vmin=0, vmax=1, origin="lower", aspect="auto",
        interpolation="nearest", extent=(-0.5, share.shape[1] - 0.5, 0, top), zorder=2,
    )  # fmt: skip


def consecutive_overlap(selections: Sequence[Any]) -> list[float]:
    """Share of every choice that was in the choice before.

    Args:
        selections: Positions chosen by step, ``(k,)`` each, without repeats.

    Returns:
        One number in 0..1 for every step but the first; 1 for an empty choice, which lacks nothing.

    Raises:
        UserError: If there are fewer than two steps.

    Example:
        >>> consecutive_overlap([[1, 2, 3, 4], [2, 3, 4, 5], [9, 8, 7, 6]])
        [0.75, 0.0]
    """
    rows = [as_array(f"selections[{i}]", row, 1) for i, row in enumerate(selections)]
    if len(rows) < 2:
        raise UserError(f"selections must be of at least 2 steps, got {len(rows)}")
    return [float(np.isin(new, old).mean()) if len(new) else 1.0 for old, new in pairwise(rows)]


def overlap_curves(
    overlaps: Curves,
    path: str | os.PathLike[str],
    *,
    chance: float | None = None,
    title: str = "Share of a choice that the step before had chosen too",
    remark: str = "",
) -> Path:
    """Draw the overlap of consecutive choices: what reuse across steps could live on.

    Args:
        overlaps: ``(steps - 1,)`` in 0..1 by name (a layer, a method), as :func:`consecutive_overlap` returns it.
        path: The PNG.
        chance: What random choices would overlap, ``k`` over the middle tokens; a dashed line.
        title: Of the picture.
        remark: A line above the axes.

    Returns:
        The path.

    Raises:
        UserError: If lengths differ or a value is not in 0..1.
    """
    checked = check_curves("overlaps", overlaps, least=0)
    for name, values in checked.items():
        if np.nanmax(values) > 1:
            raise UserError(f"overlaps[{name!r}] must be in 0..1, got {np.nanmax(values):g}")
    if chance is not None and not 0 <= chance <= 1:
        raise UserError(f"chance must be in 0..1, got {chance}")
    palette = colours(list(checked))
    steps = np.arange(1, len(next(iter(checked.values()))) + 1)
    window = max(1, len(steps) // 24)
    with canvas(title, 7.4, 3.8) as fig:
        ax = fig.subplots()
        smooth = f"bold: mean of {window} steps" if window > 1 else ""
        note(ax, "; ".join(filter(None, [remark, smooth])))
        ends = []
        for name, values in checked.items():
            colour = palette[name]
            if window > 1:
                ax.plot(steps, 100 * values, color=colour, linewidth=0.6, alpha=0.35)
            ax.plot(
                steps,
                100 * _running_mean(values, window),
                color=colour,
                marker="" if window > 1 else "o",
                markersize=3.5,
            )
            last = _running_mean(values, window)[np.isfinite(values)][-1]
            ends.append(
                (float(steps[-1]), 100 * float(last), f"{label(name)}, mean {100 * np.nanmean(values):.0f} %", colour)
            )
        if chance is not None:
            ax.axhline(100 * chance, color=QUIET, linewidth=1, linestyle=(0, (5, 4)), zorder=1)
            ends.append((float(steps[-1]), 100 * chance, f"by chance {100 * chance:.0f} %", QUIET))
        ax.set_ylim(0, 100)
        ax.set_xlim(steps[0] - 0.5, steps[-1] + 0.5)
        ax.locator_params(axis="x", integer=True)
        ax.set_xlabel("step")
        ax.set_ylabel("overlap, %")
        label_ends(ax, ends)
        said = joined([f"{label(name)} {100 * np.nanmean(values):.0f} %" for name, values in checked.items()])
        by_chance = "" if chance is None else f"; by chance it would be {100 * chance:.0f} %"
        seen = (
            f"Line chart of the share of a choice that the step before had chosen too, over {len(steps)} steps; on "
            f"average: {said}{by_chance}."
        )
        return save(fig, path, seen)


def _running_mean(values: Any, window: int) -> Any:
    """Mean of the last ``window`` values; of those there are at the beginning."""
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0), np.ones(window))[: len(values)]
    count = np.convolve(known, np.ones(window))[: len(values)]
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
