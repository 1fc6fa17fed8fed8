"""Plots of an analysis. Each function draws one PNG below 300 kB and returns its path."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from effkit.errors import choose
from effkit.plots import PLOT_COLOURS, describe, figure, joined, save_png
from kd_autoaug.analysis.result import POLICY, STATISTICS, AnalysisResult, Cell, magnitude_name
from kd_autoaug.analysis.suggest import Suggestion

__all__ = ["plot_classes", "plot_heat", "plot_k", "plot_reliability"]

PathLike = str | os.PathLike[str]

# Low is good for these, high for the others: the dark end of the colours is always the harm.
_HARM = {"confidence_drop", "outlier_rate", "view_kl", "teacher_entropy"}
_MOST_CLASSES = 40


def _harmless_name(name: str) -> str:
    return name.replace("_", " ")


def plot_heat(result: AnalysisResult, statistic: str, path: PathLike) -> Path:
    """Operator x magnitude, the figure written into each field; the policy stands below its operators.

    Args:
        result: Of ``analyze``.
        statistic: One of ``result.statistics``.
        path: The PNG.

    Raises:
        UserError: If the statistic was not measured.
    """
    choose("statistic", statistic, result.statistics)
    names = result.operators + ([POLICY] if any(c.operator == POLICY for c in result.cells) else [])
    grid = np.array(result.grid(statistic, names))
    title, unit, by = STATISTICS[statistic]
    shares = not unit
    columns, rows = len(result.magnitudes), len(names)
    low, high = _limits(grid, result.clean.value(statistic), statistic)
    with figure(2.6 + 0.75 * columns + 0.6, 1.3 + 0.32 * rows) as fig:
        ax = fig.subplots()
        ax.grid(False)
        image = ax.imshow(grid, aspect="auto", cmap="Blues" if statistic in _HARM else "Blues_r", vmin=low, vmax=high)
        ax.set_xticks(range(columns), [magnitude_name(m) for m in result.magnitudes])
        ax.set_yticks(range(rows), [_harmless_name(n) for n in names])
        ax.tick_params(length=0)
        ax.set_xlabel(f"magnitude ({result.settings.get('space', 'space unknown')})")
        if POLICY in names and rows > 1:
            ax.axhline(rows - 1.5, color="white", linewidth=4)
            ax.get_yticklabels()[-1].set_fontweight("bold")
        for i in range(rows):
            for j in range(columns):
                if math.isnan(grid[i, j]):
                    continue
                red, green, blue, _ = image.cmap(image.norm(grid[i, j]))
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
                text = f"{100 * grid[i, j]:.1f}" if shares else f"{grid[i, j]:.2f}"
                text = text.replace("-0.00", "0.00") if float(text) == 0 else text
                ax.text(j, i, text, ha="center", va="center", fontsize=8.5, color="white" if dark else "black")
        for spine in ax.spines.values():
            spine.set_visible(False)
        ax.set_title(f"{title[0].upper()}{title[1:]}, {'%' if shares else unit}", loc="left")
        without = result.clean.value(statistic)
        shown = f"{100 * without:.1f} %" if shares else f"{without:.2f} {unit}"
        who = "adapted probe" if by == "probe" else "frozen teacher"
        fig.supxlabel(f"{who}; without augmentation {shown}", fontsize=8, x=0.01, ha="left", color="#444444")
        describe(
            fig,
            f"Heat map of {title} for {rows} operators and {columns} magnitudes: most harmed is "
            f"{_worst_field(grid, statistic, names, result.magnitudes)}; without augmentation {shown}.",
        )
        return save_png(fig, path)


def _worst_field(grid: np.ndarray, statistic: str, names: Sequence[str], magnitudes: Sequence[float]) -> str:
    """Where the harm is greatest, and how large the figure is there."""
    if np.isnan(grid).all():
        return "nothing that was measured"
    i, j = map(int, np.unravel_index(np.nanargmax(grid if statistic in _HARM else -grid), grid.shape))
    unit = STATISTICS[statistic][1]
    value = f"{grid[i, j]:.2f} {unit}" if unit else f"{100 * grid[i, j]:.1f} %"
    return f"{_harmless_name(names[i])} at M={magnitude_name(magnitudes[j])} with {value}"


def _limits(grid: np.ndarray, clean: float, statistic: str) -> tuple[float, float]:
    """Colour scale: from no effect to the worst, so that fields of no effect look alike in every plot."""
    finite = grid[np.isfinite(grid)]
    values = np.append(finite, clean) if math.isfinite(clean) else finite
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if statistic in _HARM or statistic.startswith("information"):
        low = min(low, 0.0)
    return low, high if high > low else low + 1.0


def plot_classes(result: AnalysisResult, cell: Cell, statistic: str, path: PathLike) -> Path:
    """One bar per class, the most harmed class first; of many classes the worst are shown, and the plot says so.

    Args:
        result: Of ``analyze``.
        cell: One of its cells.
        statistic: One of ``result.statistics``.
        path: The PNG.

    Raises:
        UserError: If the statistic was not measured.
    """
    choose("statistic", statistic, result.statistics)
    values = np.array(cell.per_class[statistic])
    title, unit, _ = STATISTICS[statistic]
    scale = 1 if unit else 100
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    order = (order[::-1] if statistic in _HARM else order)[:_MOST_CLASSES]
    hidden = len(known) - len(order)
    names = [result.class_names[c] for c in order]
    upright = max(map(len, names), default=1) <= 4
    with figure(max(4.5, 1.4 + 0.24 * len(order)), 3.2) as fig:
        ax = fig.subplots()
        ax.grid(axis="x", visible=False)
        ax.bar(range(len(order)), scale * values[order], color=PLOT_COLOURS[0], width=0.75)
        whole = scale * cell.value(statistic)
        if math.isfinite(whole):
            ax.axhline(whole, color=PLOT_COLOURS[1], linewidth=1.4, label=f"all classes: {whole:.3g}")
            ax.legend(loc="upper right" if statistic in _HARM else "upper left", fontsize=9)
        top = max([0.0, *(scale * values[order])])
        ax.set_ylim(top=1.22 * top if top > 0 else 1.0)
        ax.set_xticks(
            range(len(order)), names, fontsize=9, rotation=0 if upright else 60, ha="center" if upright else "right"
        )
        ax.set_xlabel("class" + (f" (the {len(order)} most affected of {len(known)})" if hidden else ""))
        ax.set_ylabel(f"{title}, {unit or '%'}")
        ax.set_title(f"{_harmless_name(cell.name)}, class by class", loc="left")
        most = joined([f"{name} {scale * value:.3g}" for name, value in zip(names, values[order], strict=True)], most=3)
        describe(
            fig,
            f"Bar chart of {title} for {len(order)} classes under {_harmless_name(cell.name)}, {unit or 'in %'}, the "
            f"most harmed first: {most or 'nothing was measured'}; all classes together {whole:.3g}.",
        )
        return save_png(fig, path)


def plot_k(suggestion: Suggestion, path: PathLike, most: int = 4) -> Path:
    """K(M): the classes that hold most of the teacher's probability, as the magnitude grows.

    Args:
        suggestion: Of ``suggest``.
        path: The PNG.
        most: Operators to name, those with the largest K; the others are drawn in grey.
    """
    curves = suggestion.k
    first = [c for c in curves if c.name == POLICY]
    others = sorted((c for c in curves if c.name != POLICY), key=lambda c: -max(c.k.values()))
    named, rest = others[:most], others[most:]
    ticks = ["clean" if m is None else magnitude_name(m) for m in curves[0].k]
    with figure(6.4, 3.6) as fig:
        ax = fig.subplots()
        for number, curve in enumerate(rest):
            label = "other operators" if not number else None
            ax.plot(range(len(ticks)), list(curve.k.values()), color="#C8C8C8", linewidth=1.2, label=label)
        shift = np.linspace(-0.06, 0.06, max(2, len(named)))  # K is whole: equal curves would hide each other
        for number, curve in enumerate(named):
            heights = np.array(list(curve.k.values())) + shift[number]
            colour = PLOT_COLOURS[1 + number % 7]
            ax.plot(
                range(len(ticks)), heights, "o-", color=colour, markersize=3.5, linewidth=1.3,
                label=_harmless_name(curve.name),
            )  # fmt: skip
        for curve in first:
            ax.plot(
                range(len(ticks)), list(curve.k.values()), "o-", color=PLOT_COLOURS[0], linewidth=2.8,
                label="whole policy", zorder=5,
            )  # fmt: skip
        highest = max(max(c.k.values()) for c in curves)
        ax.set_ylim(0.6, highest + 0.4)
        step = max(1, math.ceil(highest / 10))
        ax.set_yticks(range(1, highest + 1, step))
        ax.set_xticks(range(len(ticks)), ticks)
        ax.set_xlabel("magnitude")
        ax.set_ylabel("K")
        ax.set_title(f"Classes that hold {100 * suggestion.mass:g} % of the teacher's probability", loc="left")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
        said = [f"{_harmless_name(c.name)} from {min(c.k.values())} to {max(c.k.values())}" for c in [*first, *named]]
        describe(
            fig,
            f"Line chart of K, the classes that hold {100 * suggestion.mass:g} % of the teacher's probability, by "
            f"magnitude: {joined(said)}.",
        )
        return save_png(fig, path)


def plot_reliability(result: AnalysisResult, path: PathLike, operator: str = POLICY, most: int = 6) -> Path:
    """How often the teacher's answers are right, by how sure it is: honest answers lie on the diagonal.

    Args:
        result: Of ``analyze``.
        path: The PNG.
        operator: Whose views; the whole policy's by default, or the first operator's if there is no policy.
        most: Magnitudes to draw at most, spread evenly.
    """
    if operator == POLICY and not any(c.operator == POLICY for c in result.cells):
        operator = result.cells[0].operator
    row = result.row(operator)
    chosen = row if len(row) <= most else [row[i] for i in np.linspace(0, len(row) - 1, most).round().astype(int)]
    said = []
    with figure(6.2, 4.0) as fig:
        ax = fig.subplots()
        ax.plot([0, 1], [0, 1], color="#8C8C8C", linewidth=1, linestyle="--")
        for number, cell in enumerate([result.clean, *chosen]):
            found = cell.reliability
            if found is None:
                continue
            least = max(5, 0.005 * sum(found.count))  # a bin of two answers says nothing
            bins = [i for i, n in enumerate(found.count) if n >= least]
            name = "clean" if number == 0 else "" if cell.magnitude is None else f"M = {magnitude_name(cell.magnitude)}"
            said.append(f"{name or cell.operator} {found.error:.2f}")
            ax.plot(
                [found.confidence[i] for i in bins], [found.accuracy[i] for i in bins], "o-", markersize=4,
                linewidth=1.5, color="black" if number == 0 else PLOT_COLOURS[(number - 1) % 6],
                label=f"{name or cell.operator} (error {found.error:.2f})",
            )  # fmt: skip
        ax.set_xlim(0, 1.02)
        ax.set_ylim(0, 1.02)
        ax.set_aspect("equal")
        ax.set_xlabel("confidence of the answer")
        ax.set_ylabel("share that is right")
        ax.set_title(f"Reliability of the teacher: {_harmless_name(operator)}", loc="left")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
        describe(
            fig,
            f"Line chart of how often the teacher is right by how sure it is, under {_harmless_name(operator)}, beside "
            f"the diagonal of honest answers; calibration errors: {joined(said) or 'none was measured'}.",
        )
        return save_png(fig, path)
