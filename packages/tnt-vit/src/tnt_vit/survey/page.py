"""A survey as one HTML file and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from effkit.page import flat, html_page, html_picture, html_table, html_tiles
from effkit.report import Table

__all__ = ["render_html", "render_markdown"]


def render_html(
    title: str,
    lead: Sequence[str],
    tables: Sequence[Table],
    *,
    pictures: Sequence[Path] = (),
    tiles: Sequence[tuple[int | str, str, str]] = (),
    command: str = "",
    environment: dict[str, object] | None = None,
) -> str:
    """Make the page: what it says in short, an index, pictures, tables, environment.

    Args:
        title: Heading.
        lead: Sentences below it.
        tables: In reading order, each a section.
        pictures: PNG files that say what is seen.
        tiles: Figures that say at a glance what is there, see :func:`effkit.page.html_tiles`.
        command: That makes it all again.
        environment: Versions and machine.
    """
    sections = [(f"section-{i}", table) for i, table in enumerate(tables, start=1)]
    index = [("pictures", "Pictures")] * bool(pictures) + [(name, table.title) for name, table in sections]
    index += [("environment", "Environment")] * bool(environment)
    links = "".join(f'<li><a href="#{name}">{escape(label)}</a></li>' for name, label in index)
    body = [f"<h1>{escape(title)}</h1>", *(f'<p class="lead">{escape(sentence)}</p>' for sentence in lead)]
    if tiles:
        body.append(html_tiles(tiles))
    if command:
        body.append(f'<p class="soft">Run it again: <code>{escape(command)}</code></p>')
    body.append(f'<nav aria-label="Contents"><ul>{links}</ul></nav>')
    if pictures:
        body += ['<section><h2 id="pictures">Pictures</h2><div class="figures">', *map(html_picture, pictures)]
        body += ["</div></section>"]
    for name, table in sections:
        shown = html_table(table, table.title)
        body.append(f'<section><h2 id="{name}">{escape(table.title)}</h2>{shown}</section>')
    if environment:
        values = Table("", ["what", "value"], [[key, flat(value) or "none"] for key, value in environment.items()])
        shown = html_table(values, "Environment")
        body.append(f'<section><h2 id="environment">Environment</h2>{shown}</section>')
    return html_page(title, body)


def render_markdown(title: str, lead: Sequence[str], tables: Sequence[Table], pictures: Sequence[Path] = ()) -> str:
    """The same as Markdown; pictures are linked, as they lie beside it."""
    parts = [f"# {title}", *lead, *(f"![{file.stem}]({file.name})" for file in pictures)]
    parts += [f"## {table.title}\n\n{table.to_markdown().rstrip()}" for table in tables]
    return "\n\n".join(parts) + "\n"
