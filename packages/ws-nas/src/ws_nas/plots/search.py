"""What searches found: the best score by evaluation, and fronts of score or accuracy against costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from effkit.plots import PLOT_COLOURS, describe, figure, save_png
from effkit.plots.sentence import joined
from ws_nas.search.fronts import fronts

__all__ = ["draw_derived", "draw_front", "draw_progress"]


def draw_progress(scores: Mapping[str, Sequence[float]], path: Path, title: str, best: float | None = None) -> Path:
    """The best score so far, by evaluation; a line a search.

    Args:
        scores: In the order of evaluation, by search.
        path: PNG file to write.
        title: Of the picture.
        best: The best of the whole space, where it is known.
    """
    with figure(5.8, 3.6) as fig:
        ax = fig.subplots()
        said = []
        for i, (name, values) in enumerate(scores.items()):
            so_far = list(accumulate(values, max))
            colour = PLOT_COLOURS[i % len(PLOT_COLOURS)]
            ax.step(range(1, len(so_far) + 1), so_far, where="post", color=colour, label=name)
            said.append(f"{name} {so_far[-1]:.4g} after {len(so_far)}")
        if best is not None:
            ax.axhline(best, color="black", linestyle="--", linewidth=1, label="best of the space")
        ax.set_xlabel("evaluations")
        ax.set_ylabel("best score so far")
        ax.set_title(title)
        fig.legend(loc="outside lower center", ncols=3, fontsize=8)
        known = "" if best is None else f"; the best of the space is {best:.4g}"
        describe(fig, f"Best score so far by number of evaluations: {joined(said)}{known}.")
        return save_png(fig, path)


def draw_front(
    points: Sequence[tuple[float, float]], front: Sequence[tuple[float, float]], cost: str, path: Path, title: str
) -> Path:
    """All that was evaluated, and what nothing else beats in score and cost alike.

    Args:
        points: Cost and score of each.
        front: Of these, by cost.
        cost: Its name.
        path: PNG file to write.
        title: Of the picture.
    """
    with figure(5.8, 3.8) as fig:
        ax = fig.subplots()
        ax.plot(*zip(*points, strict=True), ".", color=PLOT_COLOURS[7], markersize=4, alpha=0.6, label="evaluated")
        ax.step(*zip(*front, strict=True), "o-", where="post", color=PLOT_COLOURS[1], markersize=4, label="front")
        ax.set_xlabel(cost)
        ax.set_ylabel("score")
        ax.set_title(title)
        fig.legend(loc="outside lower center", ncols=2, fontsize=8)
        (least, low), (most, high) = front[0], front[-1]
        describe(
            fig,
            f"Score against {cost} of {len(points)} architectures; the front has {len(front)}, from score {low:.4g} at "
            f"{least:.4g} to {high:.4g} at {most:.4g}.",
        )
        return save_png(fig, path)


def draw_derived(
    costs: Mapping[str, Sequence[float]],
    accuracy: Sequence[float],
    derived: Mapping[str, tuple[Mapping[str, float], float]],
    path: Path,
    title: str,
) -> Path:
    """A panel a cost: all architectures, the front that nothing beats, and where families have come to.

    Args:
        costs: Of each architecture, by the cost's name.
        accuracy: Of each when trained alone, percent.
        derived: By family, its network's costs and accuracy.
        path: PNG file to write.
        title: Of the picture.
    """
    same: dict[tuple[float, ...], list[str]] = {}  # families that have come to one network share a marker
    for name, (own, value) in derived.items():
        same.setdefault((*own.values(), value), []).append(name)
    with figure(1.0 + 3.6 * len(costs), 3.6 + 0.16 * len(same)) as fig:
        axes = fig.subplots(1, len(costs), squeeze=False, sharey=True)[0]
        said = []
        for ax, (cost, values) in zip(axes, costs.items(), strict=True):
            ax.plot(values, accuracy, ".", color=PLOT_COLOURS[7], markersize=4, alpha=0.6, label="all")
            first = fronts([(-v, a) for v, a in zip(values, accuracy, strict=True)])[0]
            front = sorted((values[i], accuracy[i]) for i in first)
            ax.step(*zip(*front, strict=True), where="post", color="black", linewidth=1, label="front")
            for i, names in enumerate(same.values()):
                own, value = derived[names[0]]
                label = f"{', '.join(names)}: {value:.2f} %"
                colour, marker = PLOT_COLOURS[i % 7], "osD^v"[i // 7 % 5]
                ax.plot(own[cost], value, marker, color=colour, markersize=7, markeredgecolor="black", label=label)
            ax.set_xlabel(cost)
            said.append(f"{len(front)} of {len(values)} are on the front of {cost}, up to {front[-1][1]:.2f} %")
        axes[0].set_ylabel("stand-alone accuracy, %")
        fig.suptitle(title, fontsize=10)
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7)
        came = joined([f"{name} to {value:.2f} %" for name, (_, value) in derived.items()], most=20)
        describe(fig, f"Points of accuracy against {' and '.join(costs)}: {'; '.join(said)}; families came: {came}.")
        return save_png(fig, path)
