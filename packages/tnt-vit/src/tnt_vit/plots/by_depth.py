"""Pictures of a survey by depth: how different tokens are, and how widely attention is spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effkit.plots import describe, figure, joined, save_png
from tnt_vit.plots.survey import draw_lines

__all__ = ["draw_attention", "draw_diversity"]

_MEASURES = {
    "cosine": "mean cosine between tokens",
    "relative_residual": "distance to equal tokens, relative",
    "effective_rank": "effective rank",
}


def draw_diversity(networks: Mapping[str, Sequence[Mapping[str, float]]], path: Path, *, title: str) -> Path:
    """How different tokens are by depth, a panel a measure, a line a network.

    Args:
        networks: Name to one row a block.
        path: The PNG.
        title: Of the picture.
    """
    with figure(width=11.5, height=4.2) as fig:
        panels = fig.subplots(1, len(_MEASURES))
        for axes, (key, label) in zip(panels, _MEASURES.items(), strict=True):
            curves = {
                n: (np.linspace(0, 100, len(rows)).tolist(), [r[key] for r in rows]) for n, rows in networks.items()
            }
            draw_lines(axes, curves)
            axes.set(title=label, xlabel="depth, % of the blocks")
        panels[-1].set_yscale("log")
        handles, labels = panels[0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside right upper", fontsize=7.5)
        fig.suptitle(title)
        ends = [f"{n} from {rows[0]['cosine']:.2f} to {rows[-1]['cosine']:.2f}" for n, rows in networks.items()]
        describe(
            fig, f"Line charts of how alike tokens are by depth; mean cosine, first to last block: {joined(ends)}."
        )
        return save_png(fig, path)


def draw_attention(networks: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, *, title: str) -> Path:
    """Entropy and mean distance of attention by depth, a line a network.

    Args:
        networks: Name to one row a block that shows its attention, see
            :func:`tnt_vit.survey.attention.attention_by_block`.
        path: The PNG.
        title: Of the picture.
    """
    known = {name: rows for name, rows in networks.items() if rows}
    entropy = {name: [100 * r["entropy"] / (r["uniform"] or np.nan) for r in rows] for name, rows in known.items()}
    distance = {
        name: [np.nan if r["distance"] is None else 100 * r["distance"] for r in rows] for name, rows in known.items()
    }
    with figure(width=9.5, height=4.2) as fig:
        left, right = fig.subplots(1, 2)
        panels = (
            (left, entropy, "entropy, % of uniform attention's"),
            (right, distance, "distance, % of the picture's side"),
        )
        for axes, curves, label in panels:
            depth = {name: [100 * r["depth"] for r in rows] for name, rows in known.items()}
            draw_lines(axes, {name: (depth[name], values) for name, values in curves.items()})
            axes.set(title=label, xlabel="depth, % of the blocks")
        handles, labels = left.get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside right upper", fontsize=7.5)
        fig.suptitle(title)
        ends = [f"{n} from {_percent(values[0])} to {_percent(values[-1])}" for n, values in distance.items()]
        describe(
            fig,
            f"Line charts of the entropy and the mean distance of attention by depth; distance in % of the picture's "
            f"side, first to last block: {joined(ends)}.",
        )
        return save_png(fig, path)


def _percent(value: float) -> str:
    return f"{value:.0f} %" if np.isfinite(value) else "unknown"
