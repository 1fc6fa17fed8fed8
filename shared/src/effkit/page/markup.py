"""Badges, tables, logs and pictures as HTML; all text is escaped."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from effkit.plots import read_description
from effkit.report import format_cell

__all__ = ["BADGES", "badge", "flat", "html_log", "html_picture", "html_tiles", "readable_date"]

# Word to (CSS class, sign): the word is always there, colour and sign only help the eye.
BADGES = {
    "match": ("good", "✓"),
    "holds": ("good", "✓"),
    "differs": ("bad", "✗"),
    "does not hold": ("bad", "✗"),
    "crashed": ("bad", "✗"),
    "not measured here": ("quiet", "–"),
    "nothing to compare": ("quiet", "–"),
    "not run": ("quiet", "–"),
    "none": ("quiet", "–"),
    # Of a thing measured, and of one measured twice.
    "measured": ("good", "✓"),
    "counted": ("good", "✓"),
    "skipped": ("quiet", "–"),
    "failed": ("bad", "✗"),
    "out of memory": ("bad", "✗"),
    "same": ("good", "="),
    "other": ("bad", "≠"),
    "alike": ("quiet", "≈"),
    "faster": ("good", "▲"),
    "slower": ("bad", "▼"),
    "more": ("quiet", "▲"),
    "less": ("quiet", "▼"),
    "no interval": ("quiet", "–"),
    "only in A": ("quiet", "–"),
    "only in B": ("quiet", "–"),
    "not compared": ("quiet", "–"),
}


def badge(word: str) -> str:
    """A verdict in its colour, with its sign."""
    kind, sign = BADGES[word]
    return f'<span class="badge {kind}"><span aria-hidden="true">{sign}</span> {escape(word)}</span>'


def html_tiles(tiles: Iterable[tuple[int | str, str, str]]) -> str:
    """Figures that say at a glance what a page holds: (figure, label, kind of :data:`BADGES`)."""
    boxes = (f'<div class="tile {kind}"><b>{escape(str(n))}</b>{escape(label)}</div>' for n, label, kind in tiles)
    return f'<div class="tiles">{"".join(boxes)}</div>'


def readable_date(date: str) -> str:
    """2026-07-31T08:05:00Z as people write it."""
    return re.sub(r"(\d)T(\d\d:\d\d)(:\d\d)?Z$", r"\1, \2 UTC", date)


def flat(value: Any) -> str:
    """Nested values in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {flat(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(flat, value))
    return format_cell(value)


def html_log(text: str, name: str) -> str:
    """A log that opens on demand; it scrolls in a box of its own, which the keyboard reaches.

    Args:
        text: The log.
        name: What to call the box, unlike any other of the page.
    """
    box = f'<pre tabindex="0" role="region" aria-label="{escape(name)}">{escape(text)}</pre>'
    return f"<details><summary>End of its log</summary>{box}</details>"


def html_picture(file: Path) -> str:
    """A picture, embedded, with the sentence that the code which drew it left in the file (`effkit.plots.describe`).

    The sentence stands below it for everybody, and is the picture's alternative for those who do not see it, who hear
    it once.
    """
    try:
        picture = base64.b64encode(file.read_bytes()).decode("ascii")
        sentence = read_description(file)
    except OSError as error:  # of a file that is no picture too
        why = "was not written" if isinstance(error, FileNotFoundError) else "cannot be shown"
        return f'<p class="note">The picture {escape(file.name)} {why}.</p>'
    said = escape(sentence or f"The picture {file.name}; its file does not say what is seen.")
    image = f'<img src="data:image/png;base64,{picture}" alt="{said}">'
    return f'<figure>{image}<figcaption aria-hidden="true">{said}</figcaption></figure>'
