"""The report page: one self-contained HTML file, readable on a phone, in the dark and on paper.

Nothing is loaded from anywhere (a content security policy in the page says so): styles are inline, plots are embedded.
All text is escaped; the page is built from the very document that `results.json` holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from effkit.page import BADGES, badge, flat, html_log, html_page, html_picture, html_table, html_tiles, readable_date
from effkit.report import Table
from effkit.reproduce.summary import all_outcomes, count_verdicts, forms, verdict
from effkit.rows import Outcome, outcome_tables

__all__ = ["render_html"]

_BELOW = {"row": "metric", "reason": "source"}  # columns of outcomes that share a cell

_LEAD = (
    "Figures that papers print, beside the same figures computed on this machine, and one claim of each paper run here "
    "on real data. What takes more than a laptop (weights, large data sets, GPUs for weeks) is listed as not measured "
    "here."
)


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
    environment = Table("", ["what", "value"], [[k, flat(v) or "none"] for k, v in document["environment"].items()])
    body = [
        f"<h1>{escape(_headline(outcomes, crashed))}</h1>",
        f'<p class="lead">{_LEAD}</p>',
        _tiles(outcomes, crashed),
        _overview(papers),
        *_provenance(document),
        *(_paper(paper, folder) for paper in papers),
        "<section><h2>Environment</h2>",
        html_table(environment, "Environment"),
        "</section>",
    ]
    return html_page(document["title"], body)


def _provenance(document: dict[str, Any]) -> list[str]:
    """When and of what, in which form and how fast, and how to have it all again."""
    when = [readable_date(document["date"]), f"effkit {document['effkit']}"]
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
    tiles: list[tuple[int | str, str, str]] = []
    for word, label in (("match", "match"), ("differs", "differ"), ("not measured here", "not measured here")):
        count = sum(o.verdict == word for o in outcomes)
        tiles.append((count, label, BADGES[word][0] if count else "quiet"))
    if crashed:
        tiles.append((crashed, "crashed", "bad"))
    return html_tiles(tiles)


def _overview(papers: Sequence[dict[str, Any]]) -> str:
    columns = ["paper", "title", "verdict", "laptop-scale claim", "match", "differ", "not measured here", "seconds"]
    table = Table("", columns)
    for paper in papers:
        counts = count_verdicts(all_outcomes(paper))
        figures = [counts[v] for v in ("match", "differs", "not measured here")]
        table.rows.append(
            [paper["name"], paper["title"], verdict(paper), paper["claim_status"], *figures, paper["seconds"]]
        )
    return html_table(table, "Papers", link=lambda name: f"#{name}", below={"paper": "title"})


def _how_it_ran(paper: dict[str, Any]) -> str:
    """One sentence: now or in an earlier run, how long, in which form, what was kept and why it ran again."""
    if paper["kept"]:
        text = f"Kept from the run of {readable_date(paper['date'])}, which took {paper['seconds']:g} s"
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
    parts = [f'<section><h2 id="{escape(name)}">{escape(heading)}</h2>']
    about = [paper["reference"], f"{paper['distribution']} {paper['version']}".strip()]
    if any(about):
        parts.append(f'<p class="soft">{escape(" · ".join(a for a in about if a))}</p>')
    parts.append(f'<p class="soft">{escape(_how_it_ran(paper))}</p>')
    if paper["status"] == "crashed":
        parts.append(f'<div class="crash"><p>{badge("crashed")} {escape(paper["reason"])}</p>')
        if paper["log"]:
            parts.append(html_log(paper["log"], f"{name}: end of the log"))
        parts.append("</div>")
    if paper["claim"] is not None:
        parts += _claim(name, paper["claim"], folder)
    if paper["outcomes"]:
        parts.append("<h3>Figures of the paper</h3>")
        parts += _judged(name, [Outcome.from_dict(o) for o in paper["outcomes"]])
    return "\n".join([*parts, "</section>"])


def _claim(paper: str, claim: dict[str, Any], folder: Path) -> list[str]:
    """Pictures first: they say at a glance what the tables below say exactly."""
    parts = ["<h3>Laptop-scale claim</h3>"]
    if claim["figures"]:
        parts += ['<div class="figures">', *(html_picture(folder / figure) for figure in claim["figures"]), "</div>"]
    parts += _judged(paper, [Outcome.from_dict(o) for o in claim["outcomes"]])
    if claim["notes"]:
        parts.append("<ul>" + "".join(f"<li>{escape(note)}</li>" for note in claim["notes"]) + "</ul>")
    for table in claim["tables"]:
        shown = html_table(Table.from_dict(table), f"{paper}: {table['title']}")
        parts.append(f"<h4>{escape(table['title'])}</h4>{shown}")
    return parts


def _judged(paper: str, outcomes: Sequence[Outcome]) -> list[str]:
    """Tables of a paper's outcomes, each with the command that re-runs it, or row by row where commands differ.

    A table of which nothing was checked is closed until a reader wants it.
    """
    parts = []
    names = list(dict.fromkeys(o.table for o in outcomes))
    for name, table in zip(names, outcome_tables(outcomes), strict=True):
        members = [o for o in outcomes if o.table == name]
        commands = [o.command for o in members]
        shared = commands[0] if len(set(commands)) == 1 else ""
        inside = f'<p class="soft">Re-run: <code>{escape(shared)}</code></p>' if shared else ""
        inside += html_table(table, f"{paper}: {table.title}", below=_BELOW, again=() if shared else commands)
        heading = "" if name == "claim" else f"<h4>{escape(table.title)}</h4>"
        if heading and all(o.verdict == "not measured here" for o in members):
            count = f"{len(members)} figure{'s' * (len(members) != 1)}, not measured here"
            summary = f'<summary>{heading} <span class="soft">{count}</span></summary>'
            parts.append(f'<details class="unmeasured">{summary}{inside}</details>')
        else:
            parts.append(heading + inside)
    return parts
