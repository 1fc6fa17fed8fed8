"""Pictures of what is alike: blocks and networks by CKA, channels by t-SNE of their maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from effkit.plots import describe, figure, joined, save_png

__all__ = ["FEWEST_CHANNELS", "channel_points", "draw_cka", "draw_tsne"]

FEWEST_CHANNELS = 8  # of fewer points t-SNE makes nothing


def draw_cka(
    matrices: Mapping[str, Sequence[Sequence[float | None]]],
    path: Path,
    *,
    title: str,
    names: Sequence[str] | None = None,
) -> Path:
    """CKA as heat maps: of the blocks of networks, or of networks with each other.

    Args:
        matrices: A panel each.
        path: The PNG.
        title: Of the picture.
        names: Of the rows of a single panel; blocks are numbered.
    """
    columns = min(4, len(matrices))
    lines = -(-len(matrices) // columns)
    side = 5.2 if names else 2.6
    with figure(width=max(6.0, side * columns + 0.8), height=side * lines + 0.8) as fig:
        panels = fig.subplots(lines, columns, squeeze=False).ravel()
        for axes in panels[len(matrices) :]:
            axes.set_axis_off()
        image = None
        for axes, (name, matrix) in zip(panels, matrices.items(), strict=False):
            values = np.array([[np.nan if v is None else v for v in row] for row in matrix], dtype=float)
            image = axes.imshow(values, vmin=0, vmax=1, cmap="magma", interpolation="nearest")
            axes.grid(False)
            axes.set_title(name, fontsize=9)
            if names is not None:
                axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
                axes.set_yticks(range(len(names)), names, fontsize=7)
        fig.colorbar(image, ax=panels.tolist(), label="linear CKA", shrink=0.8)  # type: ignore[arg-type]
        fig.suptitle(title)
        describe(fig, f"Heat maps of linear CKA, {title}: {_least_alike(matrices, names)}.")
        return save_png(fig, path)


def _least_alike(matrices: Mapping[str, Sequence[Sequence[float | None]]], names: Sequence[str] | None) -> str:
    if names is not None:
        (matrix,) = matrices.values()
        places = [(i, j) for i in range(len(names)) for j in range(i)]
        pairs = [(v, names[i], names[j]) for i, j in places if (v := matrix[i][j]) is not None and np.isfinite(v)]
        if not pairs:
            return "no two of them vary"
        low, high = min(pairs), max(pairs)
        return f"{high[1]} and {high[2]} are most alike at {high[0]:.2f}, {low[1]} and {low[2]} least at {low[0]:.2f}"
    ends = [f"{name} {v:.2f}" for name, matrix in matrices.items() if (v := matrix[-1][0]) is not None]
    return "first and last block of " + joined(ends or ["none"])


def channel_points(maps: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """t-SNE of channel maps: near points are channels that react to the same places, however strongly.

    Args:
        maps: ``(channels, places)``, at least :data:`FEWEST_CHANNELS` channels.
        seed: Of t-SNE.

    Returns:
        Points ``(channels, 2)``, the standardised maps, and the channels' standard deviations ``(channels,)``.
    """
    from sklearn.manifold import TSNE

    flat = maps.astype(float)
    spread = flat.std(axis=1, keepdims=True)
    flat = (flat - flat.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)  # shapes, not sizes
    points = TSNE(perplexity=min(30.0, (len(flat) - 1) / 3), init="pca", random_state=seed).fit_transform(flat)
    return points, flat, spread[:, 0]


def draw_tsne(networks: Mapping[str, np.ndarray], path: Path, *, title: str, seed: int = 0) -> Path:
    """t-SNE of the channel maps of each network, a panel a network.

    Args:
        networks: Name to maps ``(channels, places)``.
        path: The PNG.
        title: Of the picture.
        seed: Of t-SNE.
    """
    columns = min(4, len(networks))
    lines = -(-len(networks) // columns)
    with figure(width=max(6.0, 2.6 * columns + 0.8), height=2.7 * lines + 0.8) as fig:
        panels = fig.subplots(lines, columns, squeeze=False).ravel()
        for axes in panels:
            axes.set_axis_off()
        dots = None
        for axes, (name, maps) in zip(panels, networks.items(), strict=False):
            points, _, spread = channel_points(maps, seed)
            strength = np.log10(np.maximum(spread / max(spread.max(), 1e-300), 1e-3))
            dots = axes.scatter(*points.T, c=strength, vmin=-3, vmax=0, s=7, cmap="viridis", linewidths=0)
            axes.set_title(f"{name}, {len(maps)} channels", fontsize=9)
        bar = fig.colorbar(dots, ax=panels.tolist(), shrink=0.8)  # type: ignore[arg-type]
        bar.set_label("log10 of a channel's deviation / the largest one", fontsize=8)
        fig.suptitle(title)
        said = joined([f"{len(maps)} of {name}" for name, maps in networks.items()])
        describe(fig, f"Scatter plots of channels of the last block, alike maps near each other by t-SNE: {said}.")
        return save_png(fig, path)
