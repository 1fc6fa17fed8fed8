"""How a search kept its budgets, what its steps cost, and which coordinates grew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from effkit.plots import PLOT_COLOURS, describe, figure, save_png

__all__ = ["draw_steps"]


def draw_steps(
    deviations: Sequence[float], costs: Sequence[float], unit: str, ratios: Mapping[str, float], path: Path
) -> Path:
    """Three panels: deviation from the budget and cost a step, and by how much each coordinate grew.

    Args:
        deviations: Percent off the budget, a step.
        costs: What each step took; the first is the start's.
        unit: Of the costs.
        ratios: By coordinate, its last value over its first.
        path: PNG file to write.
    """
    steps = range(1, len(deviations) + 1)
    with figure(8.4, max(2.6, 1.0 + 0.17 * len(ratios))) as fig:
        left, middle, right = fig.subplots(1, 3, width_ratios=[1, 1, 1.2])
        left.bar(steps, deviations, color=PLOT_COLOURS[0])
        left.axhline(0, color="black", linewidth=0.8)
        left.set_xticks(list(steps))
        left.set_xlabel("step")
        left.set_ylabel("% off the budget")
        left.set_title("Budget", fontsize=10)
        middle.bar(range(len(costs)), costs, color=PLOT_COLOURS[2])
        middle.set_xticks(range(len(costs)), ["start", *map(str, steps)])
        middle.set_xlabel("step")
        middle.set_ylabel(unit)
        middle.set_title("Cost", fontsize=10)
        grown = [PLOT_COLOURS[1] if r > 1 else PLOT_COLOURS[7] for r in ratios.values()]
        right.barh(range(len(ratios)), list(ratios.values()), color=grown)
        right.axvline(1, color="black", linewidth=0.8)
        right.set_yticks(range(len(ratios)), list(ratios), fontsize=7)
        right.invert_yaxis()
        right.set_xlabel("end over start")
        right.set_title("Growth", fontsize=10)
        name = max(ratios, key=lambda key: ratios[key])
        furthest = max(map(abs, deviations))
        describe(
            fig,
            f"Three panels: steps stay within {furthest:.2g} % of their budgets, take {sum(costs):,.4g} {unit} in all, "
            f"and {name} grows the most, {ratios[name]:.3g} times.",
        )
        return save_png(fig, path)
