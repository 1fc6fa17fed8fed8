"""Figures 5 to 7 of the paper: what words, sentences and the class token attend to.

Blocks are numbered from 1, as in the paper; sentences and words by (row, column) from 0. Values are scaled panel by
panel, so brightness compares places of one panel, not panels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from effkit.errors import UserError
from tnt_vit.plots.drawing import HEAT, View, bare, caption, check_blocks, frame, halves, heat, in_words, panel, sheet

__all__ = ["check_cell", "class_attention", "inner_attention", "sentence_attention"]


def check_cell(field: str, value: Sequence[int], grid: tuple[int, int]) -> tuple[int, int]:
    """Return a (row, column) of a grid.

    Args:
        field: The argument, for the message.
        value: Row and column, from 0.
        grid: Rows and columns there are.

    Raises:
        ValueError: If it is no pair of whole numbers, or outside the grid.
    """
    pair = value if isinstance(value, list | tuple) and len(value) == 2 else (None, None)
    for v, side in zip(pair, grid, strict=True):
        if isinstance(v, bool) or not isinstance(v, int) or not 0 <= v < side:
            shown = list(value) if isinstance(value, tuple) else value
            raise UserError(
                f"{field}={shown!r} must be [row, column] with row in 0..{grid[0] - 1} and column in 0..{grid[1] - 1}"
            )
    return int(value[0]), int(value[1])


def _cell(field: str, value: Sequence[int] | None, grid: tuple[int, int], default: tuple[int, int]) -> tuple[int, int]:
    return default if value is None else check_cell(field, value, grid)


def _busiest_sentence(subject: View) -> tuple[int, int]:
    """The sentence whose pixels vary most; the first of them."""
    (rows, cols), (ph, pw) = subject.grid, subject.model.patch_size
    cells = subject.pixels.reshape(rows, ph, cols, pw, -1).swapaxes(1, 2).reshape(rows * cols, ph * pw, -1)
    best = int(cells.std(axis=1).mean(axis=1).argmax())
    return best // cols, best % cols


@torch.no_grad()
def inner_attention(
    subject: View,
    blocks: Sequence[int] | None = None,
    *,
    sentence: Sequence[int] | None = None,
    word: Sequence[int] | None = None,
) -> Figure:
    """Figure 5: what one word attends to inside its sentence, head by head.

    Args:
        subject: Model and picture.
        blocks: Numbers of blocks that have an inner part; the first, a middle and the last of them if not given.
        sentence: Row and column of the sentence in the picture; the one whose pixels vary most if not given.
        word: Row and column of the query word in the sentence; one in the middle if not given.

    Raises:
        ValueError: If no block has an inner part, or a number is out of range.
    """
    model = subject.model
    if not model.tnt_blocks:
        raise UserError("no block of this model has an inner part (tnt_blocks is empty), so words do not attend")
    chosen = check_blocks(blocks, model.tnt_blocks, " (blocks that have an inner part)")
    (rows, cols), (ph, pw), words = subject.grid, model.patch_size, model.pixel_embed.word_grid
    row, col = _cell("sentence", sentence, (rows, cols), _busiest_sentence(subject))
    query = _cell("word", word, words, ((words[0] - 1) // 2, (words[1] - 1) // 2))
    subject.need_memory("Figure 5")
    maps = model.attention_maps(subject.x)
    heads = model.blocks[chosen[0] - 1].attn_in.num_heads
    wide = 1.25 * (heads + 1)
    height = max(1.4 * len(chosen), 2.1 * (subject.aspect + ph / pw))
    with sheet("Attention of one word inside its sentence (Figure 5)", 2.6 + wide, 0.85 + height) as fig:
        left, right = halves(fig, 1, 2, [2.6, wide])
        top, bottom = left.subplots(2, 1, height_ratios=[subject.aspect, ph / pw])
        panel(top, subject.pixels, "input")
        frame(top, row, col, ph, pw)
        sentence_pixels = subject.pixels[row * ph : (row + 1) * ph, col * pw : (col + 1) * pw]
        panel(bottom, sentence_pixels, f"sentence ({row}, {col}), word ({query[0]}, {query[1]})")
        _grid_lines(bottom, words, ph / words[0], pw / words[1])
        frame(bottom, *query, ph / words[0], pw / words[1])
        axes = right.subplots(len(chosen), heads + 1, squeeze=False)
        for line, block in zip(axes, chosen, strict=True):
            inner = maps[block - 1].inner
            assert inner is not None
            # Keys of one query: (heads, m)
            found = inner[0, row * cols + col, :, query[0] * words[1] + query[1]].float().cpu().unflatten(1, words)
            for i, ax in enumerate(line):
                values = found.mean(dim=0) if i == heads else found[i]
                name = "mean" if i == heads else f"head {i + 1}"
                panel(ax, values, f"{name}\n{_span(values)}", cmap=HEAT, size=7.5)
                frame(ax, *query, 1, 1)
            line[0].set_ylabel(f"block {block}", fontsize=9)
        seen = (
            f"Maps of what word ({query[0]}, {query[1]}) attends to in sentence ({row}, {col}), by {heads} heads "
            f"and in their mean, in {in_words(chosen)}"
        )
        caption(fig, subject, seen, "Red: the query word; smallest and largest weights above the maps")
        return fig


def _grid_lines(ax: Axes, grid: tuple[int, int], height: float, width: float) -> None:
    """Thin lines between the words of a sentence."""
    style: dict[str, Any] = {"color": "#888888", "linewidth": 0.7, "alpha": 0.8}
    for i in range(1, grid[0]):
        ax.axhline(i * height - 0.5, **style)
    for i in range(1, grid[1]):
        ax.axvline(i * width - 0.5, **style)


def _span(values: Tensor) -> str:
    return f"{float(values.min()):.3g} to {float(values.max()):.3g}"


@torch.no_grad()
def sentence_attention(
    subject: View, blocks: Sequence[int] | None = None, *, sentence: Sequence[int] | None = None
) -> Figure:
    """Figure 6: attention between sentences, mean of the heads: of one query over the picture, and of all as a matrix.

    Args:
        subject: Model and picture.
        blocks: Block numbers; the first, a middle and the last one if not given.
        sentence: Row and column of the query; the sentence whose pixels vary most if not given.

    Raises:
        ValueError: If a number is out of range.
    """
    model = subject.model
    chosen = check_blocks(blocks, subject.blocks)
    row, col = _cell("sentence", sentence, subject.grid, _busiest_sentence(subject))
    subject.need_memory("Figure 6")
    maps = model.attention_maps(subject.x)
    wide = 2.15 * len(chosen)
    with sheet("Attention between sentences (Figure 6)", 2.9 + wide, 0.95 + 2.15 * (subject.aspect + 1)) as fig:
        left, right = halves(fig, 1, 2, [2.9, wide])
        ax = left.subplots()
        panel(ax, subject.pixels, f"input, query sentence ({row}, {col})")
        frame(ax, row, col, *model.patch_size)
        axes = right.subplots(2, len(chosen), squeeze=False, height_ratios=[subject.aspect, 1])
        for above, below, block in zip(*axes, chosen, strict=True):
            outer = maps[block - 1].outer[0].float().mean(dim=0)[1:, 1:].cpu()  # without the class token
            found = outer[row * subject.grid[1] + col].unflatten(0, subject.grid)
            heat(above, subject, found, f"block {block}\n{_span(found)}")
            frame(above, row, col, *model.patch_size)
            panel(below, outer, cmap=HEAT, clip=1, interpolation="antialiased")
            below.set_xlabel("key sentence", fontsize=8)
        axes[1, 0].set_ylabel("query sentence", fontsize=8)
        seen = (
            f"What sentence ({row}, {col}) attends to, laid over the picture, above the matrix of all sentences, in "
            f"{in_words(chosen)}"
        )
        caption(fig, subject, seen, "Mean of the heads; matrices without their extreme 1 %")
        return fig


@torch.no_grad()
def class_attention(subject: View, block: int | None = None) -> Figure:
    """Figure 7: what the class token attends to.

    Args:
        subject: Model and picture.
        block: Block number; the last if not given.

    Raises:
        ValueError: If the block is out of range.
    """
    model = subject.model
    (chosen,) = check_blocks([model.depth if block is None else block], subject.blocks)
    subject.need_memory("Figure 7")
    outer = model.attention_maps(subject.x)[chosen - 1].outer
    found = outer[0, :, 0, 1:].float().cpu().unflatten(1, subject.grid)  # (heads, rows, columns)
    heads = len(found)
    lines = -(-heads // 6)
    cols = -(-heads // lines)
    upper_height, lower_height = 2.75 * subject.aspect + 0.3, (min(8.4 / cols, 1.9) * subject.aspect + 0.35) * lines
    title = f"Attention of the class token in block {chosen} (Figure 7)"
    with sheet(title, 8.4, 0.6 + upper_height + lower_height) as fig:
        upper, lower = halves(fig, 2, 1, [upper_height, lower_height])
        axes = upper.subplots(1, 3)
        mean = found.mean(dim=0)
        panel(axes[0], subject.pixels, "input")
        heat(axes[1], subject, mean, f"mean of the heads: {_span(mean)}")
        panel(axes[2], mean, "the same, sentence by sentence", cmap=HEAT)
        for ax, values, i in zip_longest(lower.subplots(lines, cols, squeeze=False).ravel(), found, range(heads)):
            if values is None:
                bare(ax)
            else:
                panel(ax, values, f"head {i + 1}\n{_span(values)}", cmap=HEAT, size=7.5)
        top = divmod(int(mean.argmax()), mean.shape[1])
        seen = (
            f"What the class token attends to in block {chosen}, most of all to sentence {top}, laid over the picture, "
            f"above the maps of its {heads} heads"
        )
        caption(fig, subject, seen, "Smallest and largest weights above the maps")
        return fig
