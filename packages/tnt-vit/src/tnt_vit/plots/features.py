"""Figures 3 and 4 of the paper: what sentences and words hold, as maps over the picture.

Blocks are numbered from 1, as in the paper. Values are scaled panel by
panel, so brightness compares places of one panel, not panels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from effkit.errors import UserError
from tnt_vit.plots.alike import FEWEST_CHANNELS, channel_points
from tnt_vit.plots.drawing import FEATURES, View, bare, caption, check_blocks, halves, in_words, panel, sheet

__all__ = ["channel_tsne", "feature_maps", "word_maps"]


@torch.no_grad()
def feature_maps(subject: View, blocks: Sequence[int] | None = None, *, channels: int = 12, seed: int = 0) -> Figure:
    """Figure 3a: channels of the sentences after some blocks, as maps over the picture.

    Args:
        subject: Model and picture; the paper takes a picture of 1024 x 1024 pixels.
        blocks: Block numbers; the first, a middle and the last one if not given.
        channels: How many channels, at most the sentence width.
        seed: Of the random choice of channels, the same ones in every block.

    Raises:
        ValueError: If a block or the number of channels is out of range.
    """
    model = subject.model
    chosen = check_blocks(blocks, subject.blocks)
    if not 1 <= channels <= model.embed_dim:
        raise UserError(f"channels must be in 1..{model.embed_dim} (the sentence width), got {channels}")
    picked = np.sort(np.random.default_rng(seed).choice(model.embed_dim, channels, replace=False))
    maps = model.forward_intermediates(
        subject.x, indices=[b - 1 for b in chosen], stop_early=True, intermediates_only=True
    )
    cols = min(12, channels)
    lines = -(-channels // cols)
    height = len(chosen) * lines * (0.8 * subject.aspect + 0.2)
    wide = min(max(height / subject.aspect, 2.0), 4.0)  # of the input
    with sheet("Feature maps of the sentences (Figure 3a)", wide + 0.8 * cols, 0.75 + height) as fig:
        left, right = halves(fig, 1, 2, [wide, 0.8 * cols])
        panel(left.subplots(), subject.pixels, "input")
        axes = right.subplots(len(chosen) * lines, cols, squeeze=False)
        for ax in axes.ravel():
            bare(ax)
        for i, (block, found) in enumerate(zip(chosen, maps, strict=True)):
            axes[i * lines, 0].set_ylabel(f"block {block}", fontsize=9)
            for ax, channel in zip(axes[i * lines : (i + 1) * lines].ravel(), picked, strict=False):
                panel(ax, found[0, channel], f"{channel}", cmap=FEATURES, size=6.5, clip=1)
        seen = f"Maps of {channels} channels of the sentences over the picture, after {in_words(chosen)}"
        caption(fig, subject, seen, "Numbers are channels; each map has its own scale, without its extreme 1 %")
        return fig


@torch.no_grad()
def channel_tsne(subject: View, block: int | None = None, *, seed: int = 0, thumbnails: int = 16) -> Figure:
    """Figure 3b: t-SNE of the channel maps of a block; near points are channels that react to the same places.

    Args:
        subject: Model and picture.
        block: Block number; the last if not given.
        seed: Of t-SNE.
        thumbnails: How many maps to show at their points.

    Raises:
        ValueError: If the block is out of range, or there are too few channels or sentences.
    """
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    model = subject.model
    (chosen,) = check_blocks([model.depth if block is None else block], subject.blocks)
    if model.embed_dim < FEWEST_CHANNELS or model.num_patches < 4:
        raise UserError(
            f"t-SNE needs at least {FEWEST_CHANNELS} channels of at least 4 sentences, "
            f"got {model.embed_dim} channels of {model.num_patches}"
        )
    found = model.forward_intermediates(subject.x, indices=[chosen - 1], stop_early=True, intermediates_only=True)[0][0]
    maps = found.double().cpu().numpy()
    points, flat, spread = channel_points(maps.reshape(len(maps), -1), seed)
    with sheet(f"t-SNE of the {len(maps)} channel maps of block {chosen} (Figure 3b)", 8.6, 5.3) as fig:
        left, right = fig.subplots(1, 2, width_ratios=[1, 1.75])
        panel(left, subject.pixels, "input")
        dots = right.scatter(*points.T, c=np.log10(np.maximum(spread, 1e-12)), s=14, cmap=FEATURES, linewidths=0)
        bar = fig.colorbar(dots, ax=right, shrink=0.7, pad=0.02)
        bar.set_label("log10 of the channel's standard deviation", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        for i in _far_apart(points, thumbnails):
            picture = OffsetImage(flat[i].reshape(maps.shape[1:]), zoom=24 / max(maps.shape[1:]), cmap=FEATURES)
            right.add_artist(
                AnnotationBbox(picture, tuple(points[i]), pad=0.1, bboxprops={"edgecolor": "#444444", "linewidth": 0.6})
            )
        right.margins(0.08)
        bare(right, "one point per channel, with some of the maps")
        seen = f"Scatter plot of the {len(maps)} channel maps of block {chosen}, alike ones near each other"
        caption(fig, subject, seen, "Maps are standardised, so that position tells their shape")
        return fig


def _far_apart(points: np.ndarray, count: int) -> list[int]:
    """Points that are far from each other, found greedily from the first."""
    chosen = [0]
    distance = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen


@torch.no_grad()
def word_maps(subject: View, blocks: Sequence[int] | None = None) -> Figure:
    """Figure 4: words averaged over their channels, each at its place in the picture.

    Args:
        subject: Model and picture.
        blocks: Block numbers; the first, a middle and the last one if not given.

    Raises:
        ValueError: If a block is out of range.
    """
    chosen = check_blocks(blocks, subject.blocks)
    maps = subject.model.word_features(subject.x, as_map=True)
    with sheet(
        "Words averaged over channels (Figure 4)", 2.35 * (len(chosen) + 1) + 0.1, 0.75 + 2.3 * subject.aspect
    ) as fig:
        axes = fig.subplots(1, len(chosen) + 1)
        panel(axes[0], subject.pixels, "input")
        for ax, block in zip(axes[1:], chosen, strict=True):
            has_inner = block in subject.model.tnt_blocks
            title = f"block {block}" if has_inner else f"block {block} (no inner part)"
            panel(ax, maps[block - 1][0].mean(dim=0), title, cmap=FEATURES, clip=0.5)
        seen = f"The picture, and maps of its words averaged over channels after {in_words(chosen)}"
        caption(fig, subject, seen, "Each map has its own scale, without its extreme 0.5 %")
        return fig
