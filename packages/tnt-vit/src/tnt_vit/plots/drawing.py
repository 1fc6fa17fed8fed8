"""What the figures share: the picture at the model's size, panels, overlays, and the caption that names the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from torch import Tensor

from effkit.errors import UserError
from effkit.plots import describe, figure, joined
from tnt_vit.checkpoints.origin import RANDOM
from tnt_vit.model import TNT

__all__ = [
    "FEATURES",
    "HEAT",
    "QUERY",
    "View",
    "bare",
    "caption",
    "check_blocks",
    "default_blocks",
    "frame",
    "halves",
    "heat",
    "in_words",
    "panel",
    "sheet",
]

# Perceptually uniform, so that equal steps of a value look equal.
FEATURES, HEAT = "viridis", "magma"
QUERY = "#E6194B"  # marks the query; seen on photographs and on both colour maps
_MAX_BYTES = 4 << 30


@dataclass(frozen=True)
class View:
    """A picture as a model sees it.

    Attributes:
        model: The model, in evaluation mode, for this picture's size.
        x: The input ``(1, C, H, W)``, on the model's device.
        pixels: What to show of it, ``(H, W, 3)`` or ``(H, W)`` in 0..1.
        name: What to call the picture.
        weights: What to call the weights.
    """

    model: TNT
    x: Tensor
    pixels: np.ndarray
    name: str
    weights: str

    @property
    def grid(self) -> tuple[int, int]:
        """Sentences down and across."""
        return self.model.grid_size

    @property
    def blocks(self) -> range:
        """Block numbers, from 1."""
        return range(1, self.model.depth + 1)

    @property
    def aspect(self) -> float:
        """Height over width of the picture."""
        return self.x.shape[2] / self.x.shape[3]

    def need_memory(self, what: str) -> None:
        """Refuse attention maps that no ordinary machine holds."""
        model, n = self.model, self.model.num_patches
        heads = model.blocks[0].attn_out.num_heads
        needed = 4 * model.depth * heads * (n + 1) ** 2
        if needed > _MAX_BYTES:
            raise UserError(
                f"{what}: the attention of {n} sentences in {model.depth} blocks needs {needed / 2**30:.0f} GiB; "
                "take a smaller img_size"
            )


def default_blocks(among: Sequence[int]) -> tuple[int, ...]:
    """First, middle and last of some block numbers: 1, 6 and 12 of twelve, as in the paper."""
    among = sorted(among)
    return tuple(sorted({among[0], among[(len(among) - 1) // 2], among[-1]}))


def check_blocks(blocks: Sequence[int] | None, among: Sequence[int], why: str = "") -> tuple[int, ...]:
    """Return 1-based block numbers, ascending.

    Args:
        blocks: What was asked for; ``None`` takes :func:`default_blocks`.
        among: Numbers that exist.
        why: Completes the sentence "blocks must be among ...".

    Raises:
        ValueError: If a number is not among them, or repeated.
    """
    if blocks is None:
        return default_blocks(among)
    if not isinstance(blocks, list | tuple):
        raise UserError(f"blocks={blocks!r} must be a list of block numbers")
    listed = f"{among[0]}..{among[-1]}" if list(among) == list(range(among[0], among[-1] + 1)) else f"{list(among)}"
    for block in blocks:
        if block not in among:
            raise UserError(f"blocks={list(blocks)}: {block!r} must be among {listed}{why}")
    if not blocks or len(set(blocks)) != len(blocks):
        raise UserError(f"blocks={list(blocks)} must name each block once, among {listed}")
    return tuple(sorted(blocks))


def in_words(blocks: Sequence[int]) -> str:
    """Block numbers as people say them: "block 6", "blocks 1, 6 and 12"."""
    return f"block{'s' * (len(blocks) > 1)} {joined([str(block) for block in blocks])}"


@contextmanager
def sheet(title: str, width: float, height: float) -> Iterator[Figure]:
    """Open a figure in the house style for pictures: no grid lines, narrow gaps, a title on the left."""
    with figure(width, height) as fig:
        fig.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)  # type: ignore[union-attr, call-arg]
        fig.suptitle(title, x=0.01, ha="left", fontsize=11)
        yield fig


def halves(fig: Figure, rows: int, cols: int, ratios: Sequence[float]) -> list[SubFigure]:
    """Divide a figure side by side (``1, 2``) or above each other (``2, 1``), in the ratios given."""
    kind = "width_ratios" if cols > 1 else "height_ratios"
    return list(np.ravel(fig.subfigures(rows, cols, **{kind: ratios})))  # type: ignore[call-overload]


def caption(fig: Figure, subject: View, seen: str, note: str = "") -> None:
    """Write below a figure what was drawn and whose weights were used, random ones in red; and say what is seen.

    Args:
        fig: The figure.
        subject: Model and picture.
        seen: What is seen in the figure, for those who do not see it: a sentence without its full stop.
        note: What a reader has to know, written into the figure.
    """
    random = subject.weights == RANDOM
    size = "x".join(map(str, subject.x.shape[2:]))
    text = f"{subject.name}, {size} pixels; {subject.weights.upper() if random else subject.weights}"
    colour = "#B00020" if random else "#444444"
    fig.supxlabel(f"{text}. {note}" if note else text, x=0.01, ha="left", fontsize=8, color=colour)
    describe(fig, f"{seen}; of {subject.name}, {size} pixels, {subject.weights}.")


def panel(
    ax: Axes,
    values: np.ndarray | Tensor,
    title: str = "",
    *,
    cmap: str | None = None,
    size: float = 9,
    clip: float = 0.0,
    **show: Any,
) -> Any:
    """Show a picture or a map without axes.

    Args:
        ax: Where.
        values: ``(H, W, 3)`` pixels or ``(rows, columns)`` values.
        title: Above it.
        cmap: Colour map of values; grey if not given.
        size: Font size of the title.
        clip: Percent of the values to saturate at either end, so that one outlier does not hide the rest.
        **show: Arguments of ``imshow``.
    """
    values = np.asarray(values.detach().cpu().float() if isinstance(values, Tensor) else values)
    if cmap is None:  # pixels: smooth when made smaller, square dots when enlarged
        show = {"interpolation": "antialiased", **show}
        if values.ndim == 2:
            cmap, show = "gray", {"vmin": 0, "vmax": 1, **show}
    if clip and "vmin" not in show:
        low, high = np.percentile(values, [clip, 100 - clip])
        show = {"vmin": low, "vmax": high if high > low else low + 1, **show}
    show.setdefault("interpolation", "nearest")
    image = ax.imshow(values, cmap=cmap, **show)
    bare(ax, title, size)
    return image


def bare(ax: Axes, title: str = "", size: float = 9) -> None:
    """Take ticks, grid and spines away."""
    ax.grid(False)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if title:
        ax.set_title(title, fontsize=size, pad=3)


def heat(ax: Axes, subject: View, values: np.ndarray | Tensor, title: str = "", size: float = 9) -> None:
    """Lay a map of the sentences over the picture in grey; the map's own range fills the colours."""
    values = np.asarray(values.detach().cpu().float() if isinstance(values, Tensor) else values)
    pixels = subject.pixels
    grey = pixels if pixels.ndim == 2 else pixels @ np.array([0.299, 0.587, 0.114])
    height, width = grey.shape
    panel(ax, grey, title, size=size)
    ax.imshow(values, cmap=HEAT, alpha=0.65, interpolation="bilinear", extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(height - 0.5, -0.5)


def frame(ax: Axes, row: int, col: int, height: float, width: float) -> None:
    """Outline a cell of a grid whose cells are ``height`` by ``width`` in the axes' units."""
    ax.add_patch(
        Rectangle((col * width - 0.5, row * height - 0.5), width, height, fill=False, edgecolor=QUERY, linewidth=1.8)
    )
