"""What the pictures share: names and colours of methods, checks of arrays, axes of lengths, labels of curves."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effkit.errors import UserError
from effkit.plots import PLOT_COLOURS, describe, figure, fit_captions, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Curves", "canvas", "check_curves", "check_rising", "colours", "label", "label_ends", "length_axis", "save"]

Curves = Mapping[str, Any]

BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, BLACK, GREY = PLOT_COLOURS
QUIET = "#555555"  # notes, bounds, thresholds
# Methods that are compared in one picture have different colours; the same method has one colour in all pictures.
_STYLES: dict[str, tuple[str, str]] = {
    "esa": ("ESA", BLUE),
    "esa_int8": ("ESA, 8-bit index", SKY),
    "esa_exact": ("ESA, exact scores", ORANGE),
    "esa_closed_form": ("ESA, closed form", BLUE),
    "closed_form": ("closed form", BLUE),
    "sgd_paper": ("SGD (paper)", VERMILION),
    "key_pca": ("key PCA", GREEN),
    "exact": ("exact scores", ORANGE),
    "sinks_local": ("sinks + local", PINK),
    "infllm_blocks": ("InfLLM blocks", SKY),
    "quest_pages": ("Quest pages", GREY),
    "full": ("full attention", BLACK),
    "stock": ("stock model", BLACK),
    "sdpa": ("full attention (SDPA)", BLACK),
    "flash_attn": ("full attention (flash)", GREY),
}


def label(name: str) -> str:
    """What a method is called in pictures."""
    return _STYLES[name][0] if name in _STYLES else name


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for every curve: a known method's own, the first free one for others.

    Args:
        names: Of the curves, at most 8; as in configs (``esa``) or as people read them (``ESA``).

    Raises:
        UserError: If there are more curves than colours that can be told apart.
    """
    if len(names) > len(PLOT_COLOURS):
        raise UserError(f"a picture can tell at most {len(PLOT_COLOURS)} curves apart, got {len(names)}; draw fewer")
    known = dict(_STYLES.values()) | {name: colour for name, (_, colour) in _STYLES.items()}
    taken: dict[str, str] = {}
    for name in names:
        own = known.get(name)
        if own is not None and own not in taken.values():
            taken[name] = own
    free = [c for c in PLOT_COLOURS if c not in taken.values()]
    return {name: taken[name] if name in taken else free.pop(0) for name in names}


def check_curves(
    field: str, curves: Curves, length: int | None = None, *, least: float | None = None
) -> dict[str, Any]:
    """Curves as float64 arrays of one length; NaN stands for "not measured".

    Args:
        field: The argument's name.
        curves: Values by name.
        length: How many values each must have; as many as the first if not given.
        least: No value may be below it.

    Raises:
        UserError: If there is no curve, or one has another length, an infinity, a value too small or nothing but NaN.
    """
    if not isinstance(curves, Mapping) or not curves:
        raise UserError(f"{field} must hold at least one curve by name, got {type(curves).__name__}")
    checked: dict[str, Any] = {}
    for name, values in curves.items():
        row = as_array(f"{field}[{name!r}]", values, 1)
        if length is None:
            length = len(row)
        if len(row) != length or length == 0:
            raise UserError(f"{field}[{name!r}] must hold {max(length, 1)} values, got {len(row)}")
        if np.isinf(row).any() or np.isnan(row).all():
            raise UserError(
                f"{field}[{name!r}] must hold finite values (NaN where there is none), got {row.tolist()[:4]}"
            )
        if least is not None and bool((row < least).any()):
            raise UserError(f"{field}[{name!r}] must be at least {least:g}, got {np.nanmin(row):g}")
        checked[name] = row
    return checked


def check_rising(field: str, values: Any, least: float) -> Any:
    """Numbers that rise strictly from at least ``least``, as float64.

    Raises:
        UserError: If they do not.
    """
    row = as_array(field, values, 1)
    if len(row) == 0 or not np.isfinite(row).all() or row[0] < least or bool((np.diff(row) <= 0).any()):
        raise UserError(f"{field} must be numbers that rise from at least {least:g}, got {row.tolist()[:8]}")
    return row


def as_array(field: str, values: Any, ndim: int) -> Any:
    """Numbers as a float64 array with ``ndim`` axes.

    Raises:
        UserError: If they are no numbers, ragged, or have other axes.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().float().numpy()
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{field} must be numbers with {ndim} axes, got {type(values).__name__}") from error
    if array.ndim != ndim:
        raise UserError(f"{field} must have {ndim} axes, got shape {array.shape}")
    return array


@contextmanager
def canvas(title: str, width: float, height: float) -> Iterator[Figure]:
    """A figure in the house style with its title on the left."""
    with figure(width, height) as fig:
        if title:
            fig.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        yield fig


def save(fig: Figure, path: str | os.PathLike[str], seen: str) -> Path:
    """Write the picture, below 300 kB, with a sentence that says what is seen."""
    describe(fig, seen)
    return save_png(fig, path)


def note(ax: Axes, text: str) -> None:
    """A remark in small grey letters above the axes, on the left."""
    if text:
        ax.set_title(text, loc="left", fontsize=8.5, color=QUIET, pad=6)


def short_length(tokens: float) -> str:
    """Tokens on an axis: 32,768 is "32k", 1,048,576 "1M"; 500 stays."""
    n = round(tokens)
    if n >= 1 << 20 and n % (1 << 20) == 0:
        return f"{n >> 20}M"
    for thousand in (1000, 1024):
        if n >= thousand and n % thousand == 0:
            return f"{n // thousand:,}k"
    return f"{n:,}"


def length_axis(ax: Axes, lengths: Sequence[float]) -> None:
    """A logarithmic axis of rising lengths with ticks at as many of them as have room, the longest always."""
    ax.set_xscale("log", base=2)
    room = 0.085 * np.log(lengths[-1] / lengths[0])  # a tick's name is about as wide, of the axis
    shown = [lengths[-1]]
    for length in list(lengths)[-2::-1]:
        if np.log(shown[-1] / length) >= room:
            shown.append(length)
    ax.set_xticks(shown, [short_length(n) for n in shown])
    ax.minorticks_off()


def label_ends(ax: Axes, ends: Sequence[tuple[float, float, str, str]], *, size: float = 9) -> None:
    """Write names beside the ends of curves, moved apart where they would overlap.

    Call it last: it needs the final limits of the axes.

    Args:
        ax: The axes.
        ends: ``(x, y, text, colour)`` in data coordinates.
        size: Font size.
    """
    line = {"arrowstyle": "-", "lw": 0.6, "shrinkA": 1, "shrinkB": 3}
    style: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": size, "annotation_clip": False}
    names = [
        ax.annotate(text, (x, y), xytext=(6, 0), color=colour, arrowprops={**line, "color": colour}, **style)
        for x, y, text, colour in ends
    ]
    fig: Any = ax.get_figure()
    fit_captions(fig)  # what is wrapped later would move the ends
    for _ in range(2):  # the names take room, which moves the axes, which moves the ends
        fig.draw_without_rendering()
        points = 72 / fig.dpi
        box = ax.get_window_extent()
        at = [ax.transData.transform(end[:2]) * points for end in ends]
        order = sorted(range(len(ends)), key=lambda i: at[i][1])
        gaps = [1.25 * size * (1 + ends[i][2].count("\n")) + 2 for i in order]
        placed = spread([at[i][1] for i in order], gaps, box.y0 * points, box.y1 * points)
        moved = any(abs(y - at[i][1]) > 0.5 * size for i, y in zip(order, placed, strict=True))
        for i, y in zip(order, placed, strict=True):
            start = max(0.0, box.x1 * points - at[i][0])
            names[i].xyann = (start + (14 if moved else 6), y - at[i][1])
            leader: Any = names[i].arrow_patch
            leader.set_visible(abs(y - at[i][1]) > 0.5 * size or start > size)


def spread(wanted: Sequence[float], gaps: Sequence[float], low: float, high: float) -> list[float]:
    """Move rising positions as little as possible so that neighbours do not overlap.

    Args:
        wanted: Positions, rising.
        gaps: Height of each label.
        low: Lower end of the room.
        high: Upper end; the labels may stick out evenly if there is too little room.

    Returns:
        Positions in the same order: the least squares solution, then shifted into the room.
    """
    offsets = [0.0]
    for a, b in pairwise(gaps):
        offsets.append(offsets[-1] + (a + b) / 2)
    blocks: list[list[float]] = []  # [sum, count]: pool adjacent violators
    for y, offset in zip(wanted, offsets, strict=True):
        blocks.append([y - offset, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    level = [total / count for total, count in blocks for _ in range(int(count))]
    placed = [a + b for a, b in zip(level, offsets, strict=True)]
    if sum(gaps) > high - low:
        first = (low + high - sum(gaps) + gaps[0]) / 2
        return [first + offset for offset in offsets]
    # Only what sticks out is moved, and pushes its neighbours.
    for i in range(len(placed)):
        floor = low + gaps[0] / 2 if i == 0 else placed[i - 1] + (gaps[i - 1] + gaps[i]) / 2
        placed[i] = max(placed[i], floor)
    for i in reversed(range(len(placed))):
        roof = high - gaps[-1] / 2 if i == len(placed) - 1 else placed[i + 1] - (gaps[i] + gaps[i + 1]) / 2
        placed[i] = min(placed[i], roof)
    return placed


def last_point(x: Any, y: Any) -> tuple[float, float]:
    """Where a curve with gaps ends."""
    i = int(np.flatnonzero(np.isfinite(y))[-1])
    return float(x[i]), float(y[i])
