"""A report as one HTML file that loads nothing: styles inline, pictures embedded, all text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from effkit.report import Table

__all__ = ["render"]


def render(title: str, lead: str, tables: Sequence[Table], notes: Sequence[str], pictures: Sequence[Path]) -> str:
    """Make the page, in the look of the house's report.

    Args:
        title: Heading.
        lead: What it comes to, in a sentence.
        tables: In reading order.
        notes: Sentences below them.
        pictures: PNG files.
    """
    # Only a page needs these; what they stand on takes a second to import.
    from effkit.page import html_page, html_picture, html_table

    body = [f"<h1>{escape(title)}</h1>", f'<p class="lead">{escape(lead)}</p>']
    if pictures:
        body += ['<div class="figures">', *map(html_picture, pictures), "</div>"]
    for table in tables:
        body += [f"<h2>{escape(table.title)}</h2>", html_table(table, table.title)]
    if notes:
        body += ["<h2>Notes</h2>", "<ul>", *(f"<li>{escape(note)}</li>" for note in notes), "</ul>"]
    return html_page(title, body)
