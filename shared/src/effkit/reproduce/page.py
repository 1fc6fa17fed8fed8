"""The report page: one self-contained HTML file, readable on a phone, in the dark and on paper.

Nothing is loaded from anywhere (a content security policy in the page says so): styles are inline, plots are embedded.
All text is escaped; the page is built from the very document that `results.json` holds.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from effkit.report import Table, format_cell
from effkit.rows import Outcome, outcome_tables

__all__ = ["render_html"]

# Word to (CSS class, sign): the word is always there, colour and sign only help the eye.
_BADGES = {
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

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5b6470; --line: #dfe3e8; --page: #fff; --panel: #f6f7f9;
  --good: #116329; --good-bg: #dff5e3; --bad: #a40e26; --bad-bg: #ffe3e3; --quiet-bg: #eceff2; --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #9aa4b0; --line: #343b44; --page: #14181c;
  --panel: #1c2126; --good: #7ee2a0; --good-bg: #12351f; --bad: #ff9c9c; --bad-bg: #46181b; --quiet-bg: #2a3037;
  --link: #79b8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 76rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; line-height: 1.2; }
h2 { font-size: 1.35rem; margin: 3rem 0 .25rem; padding-top: 1rem; border-top: 2px solid var(--line);
  line-height: 1.25; }
h3 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
a { color: var(--link); }
.soft, figcaption, .note { color: var(--soft); font-size: .9rem; }
p { margin: .4rem 0; max-width: 60rem; }
.scroll { overflow-x: auto; margin: .3rem 0 .8rem; border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .42rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tr:last-child > td { border-bottom: 0; }
th { background: var(--panel); color: var(--soft); font-weight: 600; white-space: nowrap; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.short { white-space: nowrap; }
td.text { min-width: 9rem; }
.badge { display: inline-block; padding: 0 .5em; border-radius: 1em; font-size: .85em; font-weight: 600;
  white-space: nowrap; }
.good { background: var(--good-bg); color: var(--good); }
.bad { background: var(--bad-bg); color: var(--bad); }
.quiet { background: var(--quiet-bg); color: var(--soft); }
.tiles { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; }
.tile { padding: .5rem 1rem; border-radius: .5rem; min-width: 6.5rem; }
.tile b { display: block; font-size: 1.6rem; line-height: 1.2; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .86em; }
code { background: var(--panel); padding: .1em .35em; border-radius: .3em; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem; overflow-x: auto; }
.crash { border-left: 4px solid var(--bad); padding-left: 1rem; margin: 1rem 0; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; background: #fff; border-radius: .5rem; display: block;
  border: 1px solid var(--line); }
ul { padding-left: 1.2rem; }
summary { cursor: pointer; color: var(--link); }
@media (max-width: 40rem) {
  body { padding: 1rem .7rem 3rem; }
  th, td { padding: .35rem .5rem; }
  /* A row of a wide table becomes a card of named values: nobody should scroll sideways to read a verdict. */
  .cards thead { display: none; }
  .cards tr { display: block; padding: .5rem .7rem; border-bottom: 1px solid var(--line); }
  .cards tr:last-child { border-bottom: 0; }
  .cards td { display: flex; gap: .8rem; padding: .12rem 0; border: 0; text-align: left; white-space: normal; }
  .cards td:empty { display: none; }
  .cards td::before { content: attr(data-name); flex: 0 0 8.5rem; color: var(--soft); }
  .cards td:first-child { font-weight: 600; }
  .cards td:first-child::before { content: none; }
}
@media print { body { max-width: none; } .scroll { overflow: visible; } h2 { break-after: avoid; } }
"""


def render_html(document: dict[str, Any], folder: Path) -> str:
    """Make the page of a run.

    Args:
        document: What `results.json` holds: title, date, environment, and the result of each paper.
        folder: Where the figures named in it are; they are embedded.

    Returns:
        The whole page.
    """
    papers = document["papers"]
    outcomes = [o for paper in papers for o in _outcomes(paper)]
    crashed = sum(paper["status"] == "crashed" for paper in papers)
    when = f"{document['date']}, effkit {document['effkit']}" + (
        f", commit {document['commit']}" if document["commit"] else ""
    )
    body = [
        f"<h1>{escape(_headline(outcomes, crashed))}</h1>",
        f'<p class="soft">{escape(when)}. Re-run everything: <code>effkit reproduce</code></p>',
        _tiles(outcomes, crashed),
        _overview(papers),
        *(_paper(paper, folder) for paper in papers),
        "<h2>Environment</h2>",
        _table(Table("", ["what", "value"], [[k, _flat(v) or "none"] for k, v in document["environment"].items()])),
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(document['title'])}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _outcomes(paper: dict[str, Any]) -> list[Outcome]:
    claim = paper["claim"] or {"outcomes": []}
    return [Outcome.from_dict(o) for o in [*paper["outcomes"], *claim["outcomes"]]]


def _headline(outcomes: Sequence[Outcome], crashed: int) -> str:
    checked = sum(o.verdict in ("match", "differs") for o in outcomes)
    differ = sum(o.verdict == "differs" for o in outcomes)
    text = (
        f"{checked - differ} of {checked} checked figures match" if differ else f"All {checked} checked figures match"
    )
    if not checked:
        text = "No figure was checked"
    return text + (f"; {crashed} paper{'s' * (crashed > 1)} crashed" if crashed else "")


def _tiles(outcomes: Sequence[Outcome], crashed: int) -> str:
    tiles = []
    for verdict, label in (("match", "match"), ("differs", "differ"), ("not measured here", "not measured here")):
        count = sum(o.verdict == verdict for o in outcomes)
        kind = _BADGES[verdict][0] if count else "quiet"
        tiles.append(f'<div class="tile {kind}"><b>{count}</b>{label}</div>')
    if crashed:
        tiles.append(f'<div class="tile bad"><b>{crashed}</b>crashed</div>')
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _overview(papers: Sequence[dict[str, Any]]) -> str:
    rows: list[list[Any]] = []
    for paper in papers:
        verdicts = [o.verdict for o in _outcomes(paper)]
        status = "crashed" if paper["status"] == "crashed" else "differs" if "differs" in verdicts else "holds"
        counts = [verdicts.count(v) for v in ("match", "differs", "not measured here")]
        rows.append([paper["name"], paper["title"], *counts, paper["claim_status"], paper["seconds"], status])
    columns = ["paper", "title", "match", "differ", "not measured here", "laptop-scale claim", "seconds", "verdict"]
    return _table(Table("", columns, rows), link=lambda name: f"#{name}")


def _paper(paper: dict[str, Any], folder: Path) -> str:
    name = paper["name"]
    heading = f"{name}: {paper['title']}" if paper["title"] else name
    parts = [f'<h2 id="{escape(name)}">{escape(heading)}</h2>']
    about = [paper["reference"], f"{paper['distribution']} {paper['version']}".strip()]
    if any(about):
        parts.append(f'<p class="soft">{escape(" · ".join(a for a in about if a))}</p>')
    if paper["status"] == "crashed":
        parts.append(f'<div class="crash"><p>{_badge("crashed")} {escape(paper["reason"])}</p>')
        if paper["log"]:
            parts.append(f"<details><summary>End of its log</summary><pre>{escape(paper['log'])}</pre></details>")
        parts.append("</div>")
    if paper["claim"] is not None:
        parts += _claim(paper["claim"], folder)
    parts += _judged([Outcome.from_dict(o) for o in paper["outcomes"]])
    return "\n".join(parts)


def _claim(claim: dict[str, Any], folder: Path) -> list[str]:
    parts = _judged([Outcome.from_dict(o) for o in claim["outcomes"]])
    if claim["notes"]:
        parts.append("<ul>" + "".join(f"<li>{escape(note)}</li>" for note in claim["notes"]) + "</ul>")
    for table in claim["tables"]:
        parts.append(f"<h3>{escape(table['title'])}</h3>{_table(Table.from_dict(table))}")
    return parts + [_figure(folder, figure) for figure in claim["figures"]]


def _judged(outcomes: Sequence[Outcome]) -> list[str]:
    """Tables of outcomes, each with the command that re-runs it, or row by row where commands differ."""
    parts = []
    names = list(dict.fromkeys(o.table for o in outcomes))
    for name, table in zip(names, outcome_tables(outcomes), strict=True):
        commands = [o.command for o in outcomes if o.table == name]
        parts.append(f"<h3>{escape(table.title)}</h3>")
        if len(set(commands)) == 1 and commands[0]:
            parts.append(f'<p class="soft">Re-run: <code>{escape(commands[0])}</code></p>')
        elif any(commands):
            table.columns.append("re-run")
            table.rows = [[*row, command] for row, command in zip(table.rows, commands, strict=True)]
        parts.append(_table(table))
    return parts


def _figure(folder: Path, name: str) -> str:
    caption = Path(name).stem.replace("_", " ").replace("-", " ").capitalize()
    try:
        picture = base64.b64encode((folder / name).read_bytes()).decode("ascii")
    except OSError:
        return f'<p class="note">{escape(caption)}: the file {escape(Path(name).name)} was not written.</p>'
    source = f"data:image/png;base64,{picture}"
    return f'<figure><img src="{source}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'


def _badge(word: str) -> str:
    kind, sign = _BADGES[word]
    return f'<span class="badge {kind}">{sign} {escape(word)}</span>'


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_flat(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_flat, value))
    return format_cell(value)


def _table(table: Table, link: Callable[[str], str] | None = None) -> str:
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
            if column in ("verdict", "laptop-scale claim") and text in _BADGES:
                shown = _badge(text)
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
