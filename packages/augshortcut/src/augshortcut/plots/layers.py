"""Figures by layer: diversity, similarity of tokens, norms of paths, the bound; and training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from effkit.plots import PLOT_COLOURS, describe, figure, joined, save_png

__all__ = ["draw_bound", "draw_epochs", "draw_layers", "draw_norms", "draw_similarity"]

_SHOWN = {
    "relative_residual": "relative: |Z - mean| / |Z|",
    "d_M": "absolute: |Z - mean|",
    "cosine": "mean cosine between tokens",
}


def draw_layers(models: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, *, title: str) -> Path:
    """Diversity by layer, a panel a measure, a line a model.

    Args:
        models: Name -> rows of :func:`augshortcut.metrics.diversity.diversity`.
        path: The PNG.
        title: Of the picture.
    """
    measures = [key for key in _SHOWN if all(rows and key in rows[0] for rows in models.values())]
    with figure(width=4.0 * max(len(measures), 1), height=3.8) as fig:
        panels = fig.subplots(1, max(len(measures), 1), squeeze=False)[0]
        for axes, key in zip(panels, measures, strict=False):
            for name, rows in models.items():
                axes.plot(range(1, len(rows) + 1), [row[key] for row in rows], marker="o", markersize=3, label=name)
            axes.set(title=_SHOWN[key], xlabel="block")
        panels[0].legend()
        fig.suptitle(title)
        moves = [
            f"{_SHOWN[key].split(':')[0]} from {rows[0][key]:.3g} to {rows[-1][key]:.3g} ({name})"
            for key in measures
            for name, rows in models.items()
        ]
        describe(fig, f"Line charts of how different tokens are by block, first to last: {joined(moves)}.")
        return save_png(fig, path)


def draw_similarity(cosines: Tensor, path: Path, *, title: str) -> Path:
    """Cosines between all tokens of a picture as a heat map.

    Args:
        cosines: ``(N, N)``.
        path: The PNG.
        title: Of the picture.
    """
    with figure(width=5.2, height=4.6) as fig:
        axes = fig.subplots()
        image = axes.imshow(cosines.numpy(), vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
        axes.set(title=title, xlabel="token", ylabel="token")
        axes.grid(False)
        fig.colorbar(image, ax=axes, label="cosine")
        low, mean = float(cosines.min()), float(cosines.mean())
        describe(
            fig, f"Heat map of cosines between {len(cosines)} tokens: {mean:.2f} on average, {low:.2f} the lowest."
        )
        return save_png(fig, path)


def draw_norms(norms: Sequence[tuple[str, float]], path: Path, *, title: str) -> Path:
    """Lipschitz constants of the paths by layer, attention and MLP apart.

    Args:
        norms: Name of a sub-layer's paths and their constant.
        path: The PNG.
        title: Of the picture.
    """
    with figure(width=7, height=3.6) as fig:
        axes = fig.subplots()
        for kind, label in (("aug_attn", "beside attention"), ("aug_mlp", "beside the MLP")):
            values = [value for name, value in norms if name.endswith(kind)]
            if values:
                axes.plot(range(1, len(values) + 1), values, marker="o", markersize=3, label=label)
        axes.set(title=title, xlabel="block", ylabel="Lipschitz constant")
        axes.legend()
        values = [value for _, value in norms]
        describe(
            fig,
            f"Line chart of the Lipschitz constants of {len(norms)} sub-layers' paths by block: "
            f"between {min(values):.2f} and {max(values):.2f}.",
        )
        return save_png(fig, path)


def draw_bound(rows: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> Path:
    """What was measured after each sub-layer beside the theorem's bound.

    Args:
        rows: Of :func:`augshortcut.metrics.bound.collapse_bound`.
        path: The PNG.
        title: Of the picture.
    """
    with figure(width=7.5, height=3.8) as fig:
        axes = fig.subplots()
        place = range(1, len(rows) + 1)
        axes.semilogy(place, [row["bound"] for row in rows], color=PLOT_COLOURS[1], marker="v", label="bound")
        axes.semilogy(place, [row["d_out"] for row in rows], color=PLOT_COLOURS[0], marker="o", label="measured")
        axes.set(title=title, xlabel="sub-layer (attention, MLP, attention, ...)", ylabel="distance to equal tokens")
        axes.legend()
        nearest, above = max(row["ratio"] for row in rows), sum(not row["holds"] for row in rows)
        describe(
            fig,
            f"Line chart of the distance to equal tokens after {len(rows)} sub-layers and its bound: "
            f"{above} of them above it; the nearest reaches {100 * nearest:.0f} % of its bound.",
        )
        return save_png(fig, path)


def draw_epochs(curves: Mapping[str, Sequence[Sequence[float]]], path: Path, *, title: str) -> Path:
    """Test accuracy by epoch, a colour a network, a line a seed.

    Args:
        curves: Network -> one curve a seed, in percent.
        path: The PNG.
        title: Of the picture.
    """
    with figure(width=7, height=3.6) as fig:
        axes = fig.subplots()
        for colour, (name, seeds) in zip(PLOT_COLOURS, curves.items(), strict=False):
            for number, curve in enumerate(seeds):
                label = f"{name}, {len(seeds)} seeds" if number == 0 else None
                axes.plot(range(1, len(curve) + 1), curve, color=colour, linewidth=1.2, label=label)
        axes.set(title=title, xlabel="epoch", ylabel="test accuracy, %")
        axes.legend(loc="lower right")
        ends = [f"{name} ends at {joined([f'{c[-1]:.1f}' for c in seeds])} %" for name, seeds in curves.items()]
        describe(fig, f"Line chart of test accuracy by epoch, a line a seed: {joined(ends)}.")
        return save_png(fig, path)
