"""The graph of a genotype: nodes in a row, and an arc for each operation between them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from effkit.plots import PLOT_COLOURS, describe, figure, save_png
from effkit.plots.sentence import joined
from ws_nas.spaces.space import Graph

__all__ = ["draw_graphs"]

BEND = 0.55  # of an arc: its top is half of that times its span
RADIUS = 0.17
LONGEST = 8  # operations a row; longer chains go on below


def _rows(graphs: Mapping[str, Graph]) -> list[tuple[str, Graph]]:
    """The graphs; a chain that is too long for a row in several."""
    found = []
    for name, graph in graphs.items():
        chain = len(graph.edges) > LONGEST and all(b - a == 1 for a, b, _ in graph.edges)
        for first in range(0, len(graph.nodes) - 1, LONGEST) if chain else (0,):
            last = first + LONGEST if chain else len(graph.nodes) - 1
            edges = tuple((a - first, b - first, o) for a, b, o in graph.edges if first <= a and b <= last)
            found.append((name if first == 0 else "", Graph(graph.nodes[first : last + 1], edges)))
    return found


def draw_graphs(graphs: Mapping[str, Graph], path: Path, title: str) -> Path:
    """A row a graph; arcs lie above and below in turn, by the node that they begin at.

    Args:
        graphs: By name, see ``Space.graphs``.
        path: PNG file to write.
        title: Of the picture.
    """
    from matplotlib.patches import FancyArrowPatch

    rows = _rows(graphs)
    colours = {o: PLOT_COLOURS[i % len(PLOT_COLOURS)] for i, o in enumerate(_operations(graphs))}
    heights = [_height(graph) for _, graph in rows]
    widest = max(len(graph.nodes) for _, graph in rows)
    with figure(1.0 + 1.0 * widest, 0.6 + 1.05 * sum(heights)) as fig:
        axes = fig.subplots(len(rows), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for ax, (name, graph), height in zip(axes, rows, heights, strict=True):
            ax.set_xlim(-0.6, widest - 0.4)
            ax.set_ylim(-height / 2, height / 2)
            ax.set_aspect("equal")
            ax.axis("off")
            ax.set_title(name, fontsize=9, loc="left", pad=1)
            for source, target, operation in graph.edges:
                side, span = _side(source, target), target - source
                arrow = FancyArrowPatch(
                    (source, 0), (target, 0), connectionstyle=f"arc3,rad={-side * BEND}", arrowstyle="-|>",
                    mutation_scale=9, shrinkA=13, shrinkB=13, color=colours[operation], linewidth=1.4,
                )  # fmt: skip
                ax.add_patch(arrow)
                top = side * BEND * span / 2
                ax.text(
                    (source + target) / 2, top, operation, ha="center", va="center", fontsize=7,
                    color=colours[operation], bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
                )  # fmt: skip
            for place, node in enumerate(graph.nodes):
                ax.plot(place, 0, "o", markersize=22, markerfacecolor="white", markeredgecolor="black")
                ax.text(place, 0, node, ha="center", va="center", fontsize=6.5)
        fig.suptitle(title, fontsize=10)
        said = [
            f"{name}: {joined([f'{o} from {g.nodes[a]} to {g.nodes[b]}' for a, b, o in g.edges], most=20) or 'no edge'}"
            for name, g in graphs.items()
        ]
        describe(fig, f"Graph of a network's choices, {'; '.join(said)}.")
        return save_png(fig, path)


def _operations(graphs: Mapping[str, Graph]) -> list[str]:
    return list(dict.fromkeys(operation for graph in graphs.values() for _, _, operation in graph.edges))


def _side(source: int, target: int) -> int:
    """1 above, 0 straight, -1 below."""
    if target - source == 1:
        return 0
    return 1 if source % 2 == 0 else -1


def _height(graph: Graph) -> float:
    """In units of the distance between two neighbours."""
    spans = [target - source for source, target, _ in graph.edges if _side(source, target)]
    return 2 * max(0.45, BEND * max(spans, default=0) / 2 + 0.2)
