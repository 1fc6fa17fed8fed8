"""What `effkit compare-machines` prints and writes: JSON, Markdown and one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from effkit.errors import UserError
from effkit.outputs import check_output_folder
from effkit.page import BADGES, flat, html_page, html_table, html_tiles, readable_date
from effkit.provenance import now
from effkit.report import Report, Table, write_json, write_text
from effkit.reproduce.machines.figures import (
    Pair,
    claim_pairs,
    judged,
    outcome_pairs,
    paper_names,
    seconds_pairs,
)
from effkit.reproduce.machines.reading import Side, read_side
from effkit.reproduce.summary import verdict

__all__ = ["compare_machines"]

_COLUMNS = ["table", "figure", "A", "B", "B / A", "95 % from", "to", "repeats", "verdict"]
_NOTE = (
    "Same: equal to the last digit. More, less: B beside A, the 95 % interval of their ratio (Student's, on "
    "logarithms; by seed where seeds are the same) leaves out 1; alike: it does not. No interval: one value a side, so "
    "that noise and difference cannot be told apart; give folders with several reports."
)


def compare_machines(a: str, b: str, output: str | Path) -> Report:
    """Compare two reports of `effkit reproduce`, figure by figure.

    Args:
        a: A `results.json`, or a folder of reports that are repeats of each other.
        b: Another.
        output: Folder for `comparison.json`, `comparison.md` and `index.html`.

    Returns:
        One line a paper, and every figure that is not the same; exit code 0, as a difference is no fault by itself.

    Raises:
        UserError: If one is no report, or they share no paper.
    """
    sides = read_side("A", a), read_side("B", b)
    folder = check_output_folder("output", output)
    names = paper_names(*sides)
    if not names:
        held = ["; ".join(sorted({p["name"] for d in side.documents for p in d["papers"]})) for side in sides]
        raise UserError(f"A and B share no paper: A has {held[0]}, B has {held[1]}")
    pairs = {name: _pairs(*sides, name) for name in names}
    seconds = [pair for name in names for pair in seconds_pairs(*sides, name)]
    summary, took = _summary(pairs, *sides), _figures("Seconds", seconds, of_paper=True)
    others = _environment(*sides)
    document: dict[str, Any] = {
        "title": "effkit compare-machines",
        "date": now(),
        "a": _about(sides[0]),
        "b": _about(sides[1]),
        "figures": [_plain(pair) for name in names for pair in pairs[name]],
        "seconds": [_plain(pair) for pair in seconds],
        "environment": others.to_dict(),
    }
    shown = {name: _figures(name, [p for p in found if p.verdict != "same"]) for name, found in pairs.items()}
    tables = [summary, took, *(table for table in shown.values() if table.rows), *([others] if others.rows else [])]
    lines = [*map(_line, sides), *_left_out(*sides, names)]
    files = [
        write_json(folder / "comparison.json", document),
        write_text(folder / "comparison.md", _markdown(lines, tables)),
        write_text(folder / "index.html", _page(lines, summary, took, pairs, others)),
    ]
    return Report("effkit compare-machines", tables, data=document, files=files, lines=lines)


def _pairs(a: Side, b: Side, name: str) -> list[Pair]:
    return [*outcome_pairs(a, b, name), *claim_pairs(a, b, name)]


def _about(side: Side) -> dict[str, Any]:
    """A side without its figures, for the record."""
    last = side.documents[-1]
    keys = ("date", "commit", "effkit", "full", "claims")
    return {"machine": side.machine, "reports": len(side.documents), **{k: last.get(k) for k in keys}}


def _line(side: Side) -> str:
    about = _about(side)
    commit = f", commit {about['commit']}" if about["commit"] else ""
    count = about["reports"]
    return (
        f"{side.name}: {about['machine']}, effkit {about['effkit']}{commit}, {count} report{'s' * (count != 1)}, "
        f"the newest of {readable_date(str(about['date']))}."
    )


def _left_out(a: Side, b: Side, names: Sequence[str]) -> list[str]:
    """Papers that one side alone has."""
    lines = []
    for side in (a, b):
        own = dict.fromkeys(p["name"] for d in side.documents for p in d["papers"] if p["name"] not in names)
        lines += [f"Only in {side.name}, and not compared: {', '.join(own)}."] * bool(own)
    return lines


def _plain(pair: Pair) -> dict[str, Any]:
    ratio = pair.ratio
    fields = {"paper": pair.paper, "table": pair.where, "figure": pair.what, "a": pair.a, "b": pair.b}
    interval = None if ratio is None or ratio.low is None else [ratio.low, ratio.high]
    found = {"ratio": ratio.value if ratio else None, "interval": interval, "paired": pair.paired}
    return {**fields, **found, "verdict": pair.verdict, "note": pair.note}


def _summary(pairs: dict[str, list[Pair]], a: Side, b: Side) -> Table:
    """How many figures of each paper have each verdict, and whether the paper holds on each side (newest report)."""
    words = ("same", "alike", "more", "less", "other", "no interval", "not compared", "only in A", "only in B")
    counts = {name: judged(found) for name, found in pairs.items()}
    used = [word for word in words if any(word in count for count in counts.values())]
    rows: list[list[Any]] = [
        [name, *(verdict(dict(side.papers(name)[-1])) for side in (a, b)), *(count.get(word, 0) for word in used)]
        for name, count in counts.items()
    ]
    return Table("Figures by paper", ["paper", "A", "B", *used], rows, _NOTE)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _figures(title: str, pairs: Sequence[Pair], *, of_paper: bool = False) -> Table:
    table = Table(title, ["paper", *_COLUMNS[1:]] if of_paper else list(_COLUMNS))
    for pair in pairs:
        ratio = pair.ratio if pair.verdict != "not compared" else None
        ends = [ratio.value, ratio.low, ratio.high] if ratio else [None] * 3
        repeats = f"{len(pair.a)}, {len(pair.b)}"
        first = pair.paper if of_paper else pair.where
        table.rows.append([first, pair.what, _mean(pair.a), _mean(pair.b), *ends, repeats, pair.verdict])
    table.note = "; ".join(dict.fromkeys(pair.note for pair in pairs if pair.note))
    return table


def _environment(a: Side, b: Side) -> Table:
    """Versions and hardware that differ."""
    one, two = a.environment, b.environment
    table = Table("What differs beside the figures", ["what", "A", "B"])
    for key in [k for k in dict.fromkeys([*one, *two]) if k != "date"]:
        x, y = one.get(key), two.get(key)
        if isinstance(x, dict) and isinstance(y, dict):
            table.rows += [[n, x.get(n), y.get(n)] for n in dict.fromkeys([*x, *y]) if x.get(n) != y.get(n)]
        elif x != y:
            table.rows.append([key, flat(x), flat(y)])
    return table


def _markdown(lines: Sequence[str], tables: Sequence[Table]) -> str:
    parts = ["# Two reproductions beside each other", *lines]
    parts += [f"## {table.title}\n\n{table.to_markdown().rstrip()}" for table in tables]
    return "\n\n".join(parts) + "\n"


def _page(lines: Sequence[str], summary: Table, took: Table, pairs: dict[str, list[Pair]], others: Table) -> str:
    counts = judged([pair for found in pairs.values() for pair in found])
    tiles = [(count, word, BADGES[word][0]) for word, count in counts.items()]
    title = f"{counts.get('same', 0)} of {sum(counts.values())} figures are the same"
    body = [f"<h1>{escape(title)}</h1>", *(f'<p class="soft">{escape(line)}</p>' for line in lines), html_tiles(tiles)]
    body.append(html_table(summary, summary.title, link=lambda name: f"#{name}"))
    body += ["<section><h2>Seconds</h2>", html_table(took, took.title), "</section>"]
    for name, found in pairs.items():
        table = _figures(name, [pair for pair in found if pair.verdict != "same"])
        same = sum(pair.verdict == "same" for pair in found)
        body.append(f'<section><h2 id="{escape(name)}">{escape(name)}</h2><p>{same} figures are the same.</p>')
        body += [html_table(table, f"{name}: figures that are not the same") if table.rows else "", "</section>"]
    shown = html_table(others, others.title) if others.rows else '<p class="note">Nothing.</p>'
    body.append(f"<section><h2>{escape(others.title)}</h2>{shown}</section>")
    return html_page("effkit compare-machines", body)
