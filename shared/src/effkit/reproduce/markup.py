"""Tables and badges as HTML; all text is escaped."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from effkit.report import Table, format_cell

__all__ = ["BADGES", "badge", "flat", "html_table"]

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
}


def badge(word: str) -> str:
    """A verdict in its colour, with its sign."""
    kind, sign = BADGES[word]
    return f'<span class="badge {kind}">{sign} {escape(word)}</span>'


def flat(value: Any) -> str:
    """Nested values in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {flat(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(flat, value))
    return format_cell(value)


def html_table(table: Table, link: Callable[[str], str] | None = None) -> str:
    """A table; where the screen is narrow it scrolls sideways, or becomes cards if it has more columns than fit.

    `link` turns first cells into links.
    """
    numeric = table.numeric_columns()
    longest = [max((len(format_cell(row[i])) for row in table.rows), default=0) for i in range(len(table.columns))]
    kinds = ["number" if n else "short" if length <= 20 else "text" for n, length in zip(numeric, longest, strict=True)]
    head = "".join(f'<th class="{kind}">{escape(c)}</th>' for c, kind in zip(table.columns, kinds, strict=True))
    lines = []
    for row in table.rows:
        cells = []
        for index, (value, column, kind) in enumerate(zip(row, table.columns, kinds, strict=True)):
            text = format_cell(value)
            shown = escape(text)
            if column in ("verdict", "laptop-scale claim") and text in BADGES:
                shown = badge(text)
            elif column == "re-run" and text:
                shown = f"<code>{shown}</code>"
            elif index == 0 and link is not None:
                shown = f'<a href="{escape(link(text))}">{shown}</a>'
            cells.append(f'<td class="{kind}" data-name="{escape(column)}">{shown}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    cards = ' class="cards"' if len(table.columns) > 5 else ""
    inside = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll"><table{cards}>{inside}</table></div>{note}'
