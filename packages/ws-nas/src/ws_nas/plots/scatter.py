"""Inherited against stand-alone accuracy of each architecture, with what the rank correlation is held against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from effkit.plots import PLOT_COLOURS, describe, figure, save_png
from ws_nas.meters.report import GapReport

__all__ = ["draw_scatter"]


def draw_scatter(report: GapReport, q: Sequence[float], s: Sequence[float], path: Path, unit: str = "%") -> Path:
    """One point an architecture.

    Args:
        report: Says what is drawn, and how it ranks.
        q: Scores, ``[n]``.
        s: The truth, ``[n]``; of several seeds the mean.
        path: PNG file to write.
        unit: Of the truth.
    """
    m2 = report.ranking
    low, high = m2.interval
    with figure(6.2, 4.2) as fig:
        ax = fig.subplots()
        many = len(q) > 500
        ax.plot(q, s, ".", color=PLOT_COLOURS[0], markersize=2 if many else 6, alpha=0.4 if many else 0.7)
        ax.set_xlabel(f"{report.score}")
        ax.set_ylabel(f"stand-alone: {report.truth}" + (f", {unit}" if unit else ""))
        baselines = ", ".join(f"{name} {tau:.2f}" for name, tau in m2.baselines.items())
        lines = [f"tau {m2.tau:.3f} [{low:.3f}, {high:.3f}]", f"noise ceiling {m2.ceiling:.3f}", f"tau of {baselines}"]
        ax.set_title(f"{report.space}, {m2.n} architectures")
        fig.legend(
            handles=[ax.plot([], [], " ")[0] for _ in lines], labels=lines, loc="outside lower center", ncols=3,
            fontsize=8, handlelength=0, handletextpad=0,
        )  # fmt: skip
        describe(
            fig,
            f"Points of {m2.n} architectures of {report.space}: {report.score} from {np.min(q):.3g} to {np.max(q):.3g} "
            f"against stand-alone {report.truth} from {np.min(s):.3g} to {np.max(s):.3g}; {'; '.join(lines)}.",
        )
        return save_png(fig, path)
