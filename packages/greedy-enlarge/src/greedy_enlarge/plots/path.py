"""Where the MACs go along a search's path, and how the candidates of each step came out."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from effkit.plots import PLOT_COLOURS, describe, figure, save_png

__all__ = ["draw_path", "draw_ranking"]


def draw_path(macs: Sequence[Sequence[int]], parts: Sequence[str], labels: Sequence[str], path: Path) -> Path:
    """Stacked bars of MACs per part, one bar a network.

    Args:
        macs: Per network, per part.
        parts: Names of the parts.
        labels: Names of the networks.
        path: PNG file to write.
    """
    with figure(7.0, 1.2 + 0.42 * len(macs)) as fig:
        ax = fig.subplots()
        left = [0.0] * len(macs)
        for i, part in enumerate(parts):
            values = [row[i] / 1e6 for row in macs]
            colour = PLOT_COLOURS[i % len(PLOT_COLOURS)]
            hatch = "//" if i >= len(PLOT_COLOURS) else None
            ax.barh(range(len(macs)), values, left=left, label=part, color=colour, hatch=hatch, edgecolor="white")
            left = [a + b for a, b in zip(left, values, strict=True)]
        ax.set_yticks(range(len(macs)), labels)
        ax.invert_yaxis()
        ax.set_xlabel("MMACs")
        ax.set_title("Where the MACs go, step by step")
        fig.legend(loc="outside right center", fontsize=8)
        first, last = sum(macs[0]) / 1e6, sum(macs[-1]) / 1e6
        describe(
            fig, f"Stacked bars of MACs per stage, from {first:,.4g} to {last:,.4g} million in {len(macs) - 1} steps."
        )
        return save_png(fig, path)


def draw_ranking(steps: Sequence[Sequence[tuple[str, Sequence[float], bool]]], path: Path) -> Path:
    """Mean scores of the candidates, one panel a step; the tie set is filled.

    Args:
        steps: Per step, per candidate: move, scores, whether it is tied with the leader.
        path: PNG file to write.
    """
    most = max(len(s) for s in steps)
    with figure(2.4 * len(steps), 1.4 + 0.22 * most) as fig:
        axes = fig.subplots(1, len(steps), squeeze=False)[0]
        for number, (ax, candidates) in enumerate(zip(axes, steps, strict=True), 1):
            for row, (_, scores, tied) in enumerate(candidates):
                colour = PLOT_COLOURS[0] if tied else "white"
                mean = statistics.fmean(scores)
                if len(scores) > 1:
                    ax.plot([min(scores), max(scores)], [row, row], color=PLOT_COLOURS[7], linewidth=1.0)
                ax.plot([mean], [row], "o", color=PLOT_COLOURS[0], markerfacecolor=colour, markersize=5)
            ax.set_yticks(range(len(candidates)), [move for move, *_ in candidates], fontsize=7)
            ax.invert_yaxis()
            ax.tick_params(axis="x", labelsize=7)
            ax.set_title(f"step {number}", fontsize=9)
        fig.supxlabel("score; filled: within the margin of the best", fontsize=8)
        winners = ", ".join(step[0][0] for step in steps)
        describe(fig, f"Mean scores of the candidates of each step, the best first; chosen were {winners}.")
        return save_png(fig, path)
