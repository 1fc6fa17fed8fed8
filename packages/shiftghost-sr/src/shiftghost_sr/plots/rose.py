"""Where shifts point: a rose over all of them, and a row a layer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effkit.plots import PLOT_COLOURS, describe, figure, joined, save_png

__all__ = ["draw_rose"]

Direction = tuple[int, int]


def draw_rose(layers: Mapping[str, Sequence[Direction]], path: Path, title: str) -> Path:
    """Draw the directions that a network has learnt.

    Args:
        layers: Directions ``(dy, dx)`` in which each layer's ghosts read, one for each group of channels.
        path: PNG file to write.
        title: Of the picture.
    """
    counts = Counter(direction for found in layers.values() for direction in found)
    still, moved = counts.pop((0, 0), 0), sum(counts.values())
    with figure(8.0, 4.2) as fig:
        rose = fig.add_subplot(1, 2, 1, projection="polar")
        _rose(rose, counts)
        rose.set_title(f"{moved} of {moved + still} shifts move", fontsize=10)
        _layers(fig.add_subplot(1, 2, 2), layers)
        fig.suptitle(title)
        parts = [f"{name} {count}" for name, count in (Counter({_name(d): n for d, n in counts.items()})).most_common()]
        parts += [f"no move {still}"] if still else []
        describe(
            fig,
            f"A rose of the directions in which {moved + still} shifts of {len(layers)} layers read: "
            f"{joined(parts, most=9)}.",
        )
        return save_png(fig, path)


def _rose(ax: Any, counts: Mapping[Direction, int]) -> None:
    angles = {d: math.atan2(-d[0], d[1]) for d in counts}  # rows grow downwards
    for direction, count in sorted(counts.items()):
        far = max(map(abs, direction))
        ax.bar(angles[direction], count, width=0.5 / far, color=PLOT_COLOURS[0], alpha=0.85)
    ax.set_xticks([k * math.pi / 4 for k in range(8)])
    ax.set_xticklabels(["right", "", "up", "", "left", "", "down", ""])
    top = max(counts.values(), default=1)
    ax.set_yticks(sorted({max(1, top // 2), top}))
    ax.set_ylim(0, top * 1.05)


def _layers(ax: Any, layers: Mapping[str, Sequence[Direction]]) -> None:
    far = max((max(map(abs, d)) for found in layers.values() for d in found), default=1) or 1
    for row, found in enumerate(layers.values()):
        for direction, count in Counter(found).items():
            x = direction[1] + 0.42 * (row - len(layers) / 2 + 0.5) / len(layers)
            colour = "#8C8C8C" if direction == (0, 0) else PLOT_COLOURS[0]
            share = count / len(found)
            ax.plot(x, -direction[0], "|", color=colour, markersize=6 + 14 * share, markeredgewidth=1.3)
    ax.set_xticks(range(-far, far + 1))
    ax.set_yticks(range(-far, far + 1), [str(-v) for v in range(-far, far + 1)])
    ax.set_xlim(-far - 0.5, far + 0.5)
    ax.set_ylim(-far - 0.5, far + 0.5)
    ax.set_xlabel("columns to the right")
    ax.set_ylabel("rows downwards")
    ax.set_title("layer by layer, a stroke each", fontsize=10)


def _name(direction: Direction) -> str:
    dy, dx = direction
    words = ("down" if dy > 0 else "up" if dy < 0 else "", "right" if dx > 0 else "left" if dx < 0 else "")
    name = " ".join(filter(None, words))
    far = max(abs(dy), abs(dx))
    return name if far == 1 else f"{name} ({dy}, {dx})"
