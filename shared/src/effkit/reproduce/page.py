"""The report page: one self-contained HTML file, readable on a phone, in the dark and on paper.

Nothing is loaded from anywhere (a content security policy in the page says so): styles are inline, plots are embedded.
All text is escaped; the page is built from the very document that `results.json` holds.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from effkit.report import Table
from effkit.reproduce.markup import BADGES, badge, flat, html_table
from effkit.reproduce.style import STYLE
from effkit.reproduce.summary import all_outcomes, count_verdicts, forms, verdict
from effkit.rows import Outcome, outcome_tables

__all__ = ["render_html"]


def render_html(document: dict[str, Any], folder: Path) -> str:
    """Make the page of a run.

    Args:
        document: What `results.json` holds: title, date, environment, and the result of each paper.
        folder: Where the figures named in it are; they are embedded.

    Returns:
        The whole page.
    """
    papers = document["papers"]
    outcomes = [o for paper in papers for o in all_outcomes(paper)]
    crashed = sum(paper["status"] == "crashed" for paper in papers)
    body = [
        f"<h1>{escape(_headline(outcomes, crashed))}</h1>",
        *_provenance(document),
        _tiles(outcomes, crashed),
        _overview(papers),
        *(_paper(paper, folder) for paper in papers),
        "<h2>Environment</h2>",
        html_table(Table("", ["what", "value"], [[k, flat(v) or "none"] for k, v in document["environment"].items()])),
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(document['title'])}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _provenance(document: dict[str, Any]) -> list[str]:
    """When and of what, in which form and how fast, and how to have it all again."""
    when = [document["date"], f"effkit {document['effkit']}"]
    if document["commit"]:
        when.append(f"commit {document['commit']}")
    again = f"effkit reproduce{' full=true' * document['full']}{' claims=false' * (not document['claims'])} fresh=true"
    return [
        f'<p class="soft">{escape(", ".join(when))}. Re-run everything: <code>{escape(again)}</code></p>',
        f'<p class="soft">{escape(forms(document))}</p>',
    ]


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
    for word, label in (("match", "match"), ("differs", "differ"), ("not measured here", "not measured here")):
        count = sum(o.verdict == word for o in outcomes)
        kind = BADGES[word][0] if count else "quiet"
        tiles.append(f'<div class="tile {kind}"><b>{count}</b>{label}</div>')
    if crashed:
        tiles.append(f'<div class="tile bad"><b>{crashed}</b>crashed</div>')
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _overview(papers: Sequence[dict[str, Any]]) -> str:
    rows: list[list[Any]] = []
    for paper in papers:
        counts = count_verdicts(all_outcomes(paper))
        figures = [counts[v] for v in ("match", "differs", "not measured here")]
        form = paper["claim"]["form"] if paper["claim"] else None
        run = ["kept" if paper["kept"] else "now", paper["seconds"], verdict(paper)]
        rows.append([paper["name"], paper["title"], *figures, paper["claim_status"], form, *run])
    columns = ["paper", "title", "match", "differ", "not measured here", "laptop-scale claim", "form", "run", "seconds"]
    return html_table(Table("", [*columns, "verdict"], rows), link=lambda name: f"#{name}")


def _how_it_ran(paper: dict[str, Any]) -> str:
    """One sentence: now or in an earlier run, how long, in which form, what was kept and why it ran again."""
    if paper["kept"]:
        text = f"Kept from the run of {paper['date']}, which took {paper['seconds']:g} s"
    else:
        text = f"Run now, {paper['seconds']:g} s"
    if (claim := paper["claim"]) is not None:
        text += f", of which the {claim['form']} form of the claim {claim['seconds']:g} s"
        if claim["kept_parts"]:
            text += f" (from an earlier run: {', '.join(claim['kept_parts'])})"
    return f"{text}; {paper['note']}." if paper["note"] else f"{text}."


def _paper(paper: dict[str, Any], folder: Path) -> str:
    name = paper["name"]
    heading = f"{name}: {paper['title']}" if paper["title"] else name
    parts = [f'<h2 id="{escape(name)}">{escape(heading)}</h2>']
    about = [paper["reference"], f"{paper['distribution']} {paper['version']}".strip()]
    if any(about):
        parts.append(f'<p class="soft">{escape(" · ".join(a for a in about if a))}</p>')
    parts.append(f'<p class="soft">{escape(_how_it_ran(paper))}</p>')
    if paper["status"] == "crashed":
        parts.append(f'<div class="crash"><p>{badge("crashed")} {escape(paper["reason"])}</p>')
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
        parts.append(f"<h3>{escape(table['title'])}</h3>{html_table(Table.from_dict(table))}")
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
        parts.append(html_table(table))
    return parts


def _figure(folder: Path, name: str) -> str:
    caption = Path(name).stem.replace("_", " ").replace("-", " ").capitalize()
    try:
        picture = base64.b64encode((folder / name).read_bytes()).decode("ascii")
    except OSError:
        return f'<p class="note">{escape(caption)}: the file {escape(Path(name).name)} was not written.</p>'
    source = f"data:image/png;base64,{picture}"
    return f'<figure><img src="{source}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
