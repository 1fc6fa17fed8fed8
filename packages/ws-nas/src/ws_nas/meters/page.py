"""A report as one HTML file that loads nothing: styles inline, pictures embedded, all text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from effkit.report import Table

__all__ = ["render"]

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


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
    from effkit.reproduce.markup import html_picture
    from effkit.reproduce.style import STYLE
    from effkit.reproduce.tables import html_table

    body = [f"<h1>{escape(title)}</h1>", f'<p class="lead">{escape(lead)}</p>']
    if pictures:
        body += ['<div class="figures">', *map(html_picture, pictures), "</div>"]
    for table in tables:
        body += [f"<h2>{escape(table.title)}</h2>", html_table(table, table.title)]
    if notes:
        body += ["<h2>Notes</h2>", "<ul>", *(f"<li>{escape(note)}</li>" for note in notes), "</ul>"]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )
