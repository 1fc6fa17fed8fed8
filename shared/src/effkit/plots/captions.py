"""Titles, axis names and captions that are longer than their room are wrapped, measured as they will be drawn.

Matplotlib's layout makes room for how high a title is, and not for how wide: what is longer than the figure runs over
its edge and is cut off in the file.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

__all__ = ["fit_captions"]

_PAD = 0.06  # inches between a caption and the edge of the figure, or the caption of its neighbour
_SLACK = 0.98  # letters are a little wider at other dots per inch
_WORD = re.compile(r"(?:\$[^$]*\$|\S)+")  # a formula is not broken


class Span(NamedTuple):
    """From where to where, in pixels."""

    low: float
    high: float


class Caption(NamedTuple):
    """A text, along which axis it runs (0 across, 1 up), how much room it has there, and with which it shares a row."""

    text: Text
    along: int
    room: float
    row: int | None


def fit_captions(fig: Figure) -> None:
    """Wrap the captions that have less room than they need; the figure becomes as much higher as their lines take.

    What fits is left alone. Call it before placing anything by pixels: the figure is laid out afterwards.

    Args:
        fig: The figure, with all that is drawn in it.
    """
    height = fig.get_figheight()
    asked = {text: text.get_text() for text, _, _, _ in _captions(fig)}
    # Where the axes will stand is known after a layout; captions that are far too long would leave them no room at all
    # there, and are wrapped before for where the axes stand without one. What is wrapped moves the axes once more.
    for laid_out in (False, True, True):
        if laid_out:
            fig.draw_without_rendering()
        for text, words in asked.items():
            text.set_text(words)
        wrapped, higher = _wrap_all(list(_captions(fig)))
        fig.set_size_inches(fig.get_figwidth(), height + higher / fig.dpi)
        if laid_out and not wrapped:
            return
    fig.draw_without_rendering()


def _wrap_all(captions: Sequence[Caption]) -> tuple[bool, float]:
    """Wrap what is too long; returns whether anything was, and the pixels of height that the new lines take."""
    higher: dict[Any, float] = {}
    wrapped = False
    for text, along, room, row in captions:
        before = text.get_window_extent()
        if (before.width, before.height)[along] <= room:
            continue
        wrapped = True
        text.set_text(_wrapped(text.get_text(), room * _SLACK, _ruler(text, along)))
        if along == 0:  # of captions beside each other the highest counts
            beside = text if row is None else row
            higher[beside] = max(higher.get(beside, 0.0), text.get_window_extent().height - before.height)
    return wrapped, sum(higher.values())


def _ruler(text: Text, along: int) -> Callable[[str], float]:
    def measure(words: str) -> float:
        text.set_text(words)
        extent = text.get_window_extent()
        return float((extent.width, extent.height)[along])

    return measure


def _wrapped(words: str, room: float, measure: Callable[[str], float]) -> str:
    """Lines of at most `room` as `measure` tells it; a word that is longer alone is broken where the line ends."""
    lines = []
    for paragraph in words.split("\n"):
        line = ""
        for word in _WORD.findall(paragraph):
            longer = f"{line} {word}" if line else word
            if measure(longer) <= room:
                line = longer
                continue
            if line:
                lines.append(line)
            line = word
            while "$" not in line and len(line) > 1 and measure(line) > room:
                whole = line
                fits = max(1, bisect_right(range(len(whole)), room, key=lambda n: measure(whole[:n])) - 1)
                lines.append(line[:fits])
                line = line[fits:]
        lines.append(line)
    return "\n".join(lines)


def _captions(fig: Figure) -> Iterator[Caption]:
    pad = _PAD * fig.dpi
    for part in _parts(fig):
        for text in part.texts:  # the title and the names that a whole figure may have are among them
            along = _direction(text)
            if along is not None and text.get_text().strip():
                yield Caption(text, along, _room(text, along, _span(part.bbox, along), pad), None)
    shown = [ax for ax in fig.axes if ax.get_visible()]
    rows = _rows(shown)
    for ax in shown:
        for number, text in enumerate(_names(ax)):
            along = _direction(text)
            if along is None or not text.get_text().strip() or not text.get_visible():
                continue
            edges = _between(ax, shown, along, _span(fig.bbox, along), centred=0.25 < _anchor(text, along)[1] < 0.75)
            # Titles stand above a row and names of axes below it: they make it higher each for itself.
            yield Caption(text, along, _room(text, along, edges, pad), 2 * rows[ax] + (number < 2))


def _parts(fig: Any) -> Iterator[Any]:
    yield fig
    for part in fig.subfigs:
        yield from _parts(part)


def _names(ax: Axes) -> list[Text]:
    """The names of both axes, then the titles on the left, in the middle and on the right."""
    from matplotlib.text import Text

    written = set(ax.texts)
    titles = [child for child in ax.get_children() if isinstance(child, Text) and child not in written]
    return [ax.xaxis.label, ax.yaxis.label, *titles]


def _direction(text: Text) -> int | None:
    """0 for a text that runs across, 1 for one that runs up or down, `None` for slanted ones."""
    turned = text.get_rotation() % 180
    return {0: 0, 90: 1}.get(int(turned)) if turned == int(turned) else None


def _span(box: Any, along: int) -> Span:
    return Span(*(box.intervalx, box.intervaly)[along])


def _anchor(text: Text, along: int) -> tuple[float, float]:
    """Where a text is anchored, in pixels, and how much of it is before that: 0 flush left, 0.5 centred, 1 right."""
    at = float(text.get_transform().transform(text.get_position())[along])
    low, high = _span(text.get_window_extent(), along)
    return at, min(1.0, max(0.0, (at - low) / (high - low)))


def _room(text: Text, along: int, edges: Span, pad: float) -> float:
    """How long a text may be from where it is anchored."""
    at, before = _anchor(text, along)
    rooms = [((at - edges.low - pad), before), ((edges.high - pad - at), 1 - before)]
    return max(0.0, min(room / share for room, share in rooms if share > 0.01))


def _rows(shown: list[Axes]) -> dict[Axes, int]:
    """Which axes stand beside each other: a number for each row."""
    rows: dict[Axes, int] = {}
    low, row = float("inf"), 0
    for ax in sorted(shown, key=lambda ax: -ax.bbox.y1):
        if ax.bbox.y1 <= low:
            row, low = row + 1, ax.bbox.y0
        rows[ax] = row
    return rows


def _between(ax: Axes, shown: list[Axes], along: int, edges: Span, *, centred: bool) -> Span:
    """Room up to the neighbours: to where they begin, or half way where both have names in the middle."""
    own, side = _span(ax.bbox, along), _span(ax.bbox, 1 - along)
    low, high = edges
    for other in shown:
        if other is ax or other.get_label() == "<colorbar>":  # narrow, and a title may run above it
            continue
        span, beside = _span(other.bbox, along), _span(other.bbox, 1 - along)
        if min(side.high, beside.high) - max(side.low, beside.low) < 0.5 * min(
            side.high - side.low, beside.high - beside.low
        ):
            continue
        if span.low >= own.high:
            high = min(high, (own.high + span.low) / 2 if centred else span.low)
        elif span.high <= own.low:
            low = max(low, (own.low + span.high) / 2 if centred else span.high)
    return Span(low, high)
