"""How far search rules stay below the best network of a recorded table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from effkit.plots import PLOT_COLOURS, describe, figure, save_png
from effkit.plots.sentence import joined

__all__ = ["draw_regret"]


class _Outcome(Protocol):
    @property
    def rule(self) -> str: ...
    @property
    def regret(self) -> float: ...
    @property
    def samples(self) -> int: ...


def draw_regret(outcomes: Sequence[_Outcome], path: Path) -> Path:
    """A bar a rule, the optimum left out; hollow bars are of rules that train nothing.

    Args:
        outcomes: Rules with their regret, a fraction, and the training samples they look at.
        path: PNG file to write.
    """
    shown = [o for o in outcomes if o.rule != "optimum"]
    with figure(6.5, 1.2 + 0.27 * len(shown)) as fig:
        ax = fig.subplots()
        for row, o in enumerate(shown):
            face = PLOT_COLOURS[0] if o.samples else "white"
            ax.barh(row, 100 * o.regret, color=face, edgecolor=PLOT_COLOURS[0], height=0.7)
            ax.annotate(
                f"{100 * o.regret:.1f}", (100 * o.regret, row), xytext=(4, 0), textcoords="offset points",
                va="center", fontsize=8,
            )  # fmt: skip
        ax.set_yticks(range(len(shown)), [o.rule for o in shown], fontsize=8)
        ax.invert_yaxis()
        ax.set_xlim(0, max(0.1, 115 * max(o.regret for o in shown)))
        ax.set_xlabel("points of validation accuracy below the best network; hollow: trains nothing")
        ax.set_title("Regret on the recorded table")
        figures = joined([f"{o.rule} {100 * o.regret:.1f}" for o in shown], most=len(shown))
        describe(fig, f"Bars of how many points search rules stay below the best recorded network: {figures}.")
        return save_png(fig, path)
