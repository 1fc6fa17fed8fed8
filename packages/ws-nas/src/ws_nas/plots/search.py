"""What searches found: the best score by evaluation, and the front of score against a cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from effkit.plots import PLOT_COLOURS, describe, figure, save_png
from effkit.plots.sentence import joined

__all__ = ["draw_front", "draw_progress"]


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
