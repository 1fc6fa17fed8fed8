"""Papers checked: `PACKAGE reproduce` for one paper's tables, `effkit reproduce` for all installed ones in one report.

A paper declares `Row`s and perhaps a laptop-scale `Claim`; this module evaluates them, says which figures match, and
saves what it saw: `results.json` for machines, `index.html` for people, both at the end, whole or not at all.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from effkit._provenance import commit_hash, now, package_version
from effkit._runner import run_here, run_in_subprocess
from effkit._worker import claim_to_dict, default_command, run_claim
from effkit.errors import UserError, choose
from effkit.papers import GROUP, Claim, Paper, installed_papers, select_papers
from effkit.progress import display, report_progress
from effkit.report import Report, Table, format_cell, write_json, write_text
from effkit.rows import Evidence, Outcome, Row, Tolerance, Verdict, evaluate, outcome_tables

__all__ = [
    "Claim",
    "Evidence",
    "Outcome",
    "Paper",
    "Row",
    "Tolerance",
    "Verdict",
    "count_verdicts",
    "evaluate",
    "installed_papers",
    "outcome_tables",
    "paper_report",
    "report_progress",
    "reproduce_all",
]

log = logging.getLogger(__name__)


def count_verdicts(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """How many outcomes match, differ, could not be measured here, or have nothing to compare with."""
    counts = {"match": 0, "differs": 0, "not measured here": 0, "nothing to compare": 0}
    for outcome in outcomes:
        counts[outcome.verdict] += 1
    return counts


def paper_report(
    paper: Paper,
    table: str | int | Sequence[str | int] | None = None,
    claim: bool = False,
    run_dir: str | Path | None = None,
) -> Report:
    """Check one paper in this process: what `PACKAGE reproduce` prints.

    Args:
        paper: The paper.
        table: Only these tables, e.g. 5 or ["1", "fig2"]; "claim" runs the claim only.
        claim: Also run the laptop-scale claim.
        run_dir: Where the claim writes; required for it.

    Returns:
        One table per table of the paper; exit code 1 if a checked figure differs or the claim crashes.

    Raises:
        UserError: For a table the paper does not have, or a claim it does not have; names those it has.
    """
    rows = paper.rows()
    if table is not None:
        asked = [str(t) for t in (table if not isinstance(table, (str, int)) else [table])]
        known = [*dict.fromkeys(row.table for row in rows), *(["claim"] if paper.claim is not None else [])]
        for name in asked:
            choose("table", name, list(dict.fromkeys(known)))
        rows = [row for row in rows if row.table in asked]
        claim = claim or ("claim" in asked and paper.claim is not None)
    if claim and paper.claim is None:
        raise UserError(f"claim=true: {paper.name} has no laptop-scale claim; leave it out")
    if claim and run_dir is None:
        raise UserError("run_dir is required to run a claim: it writes its figures there")
    found: Claim | None = None
    crash = ""
    with display() if claim or sys.stderr.isatty() else contextlib.nullcontext() as shown:
        if shown is not None:
            shown.start(paper.name)

        def send(text: str, fraction: float | None) -> None:
            if shown is not None:
                shown.update(paper.name, text, fraction)

        outcomes = evaluate(
            rows, progress=lambda i, n, row: send(f"row {i + 1} of {n}: {row.name} {row.metric}", i / n)
        )
        start = time.perf_counter()
        if claim:
            try:
                found = run_claim(paper, Path(run_dir or "."), send)
            except Exception as error:  # the rows are worth printing
                log.warning("the claim of %s crashed", paper.name, exc_info=True)
                crash = f"claim crashed: {type(error).__name__}: {error}".splitlines()[0]
        seconds = time.perf_counter() - start
        if shown is not None:
            shown.finish(paper.name, crash or "done")
    for outcome in outcomes:
        outcome.command = default_command(paper, outcome)
    report = Report(f"{paper.title}: the paper's figures beside ours", outcome_tables(outcomes))
    report.data = {"paper": paper.name, "outcomes": [o.to_dict() for o in outcomes], "claim": None}
    judged = list(outcomes)
    if found is not None:
        judged += found.rows
        report.tables += [*outcome_tables(found.rows), *found.tables]
        report.files += found.figures
        report.lines += found.notes
        report.data["claim"] = claim_to_dict(found, Path(run_dir or "."), seconds)
    counts = count_verdicts(judged)
    report.data["summary"] = counts
    report.lines.append(f"{_counted(counts)}.")
    if crash:
        report.lines.append(crash)
    report.exit_code = 1 if counts["differs"] or crash else 0
    return report


def reproduce_all(
    output: str | Path,
    papers: str | Iterable[str] | None = None,
    claims: bool = True,
    serial: bool = False,
) -> Report:
    """Check every installed paper and write one report: what `effkit reproduce` does.

    Each paper runs in a process of its own; one that crashes is reported as crashed, with the end of its log, and the
    others still run.

    Args:
        output: Folder for `index.html`, `results.json` and one folder per paper.
        papers: Names of papers; all installed ones if `None`.
        claims: Also run the laptop-scale claims (minutes), not only the rows (seconds).
        serial: Run the papers in this process instead, e.g. under a debugger; a crash of one then ends all.

    Returns:
        The summary; exit code 1 if a checked figure differs, a claim does not hold, a paper crashes, or there is none.

    Raises:
        UserError: If a paper asked for is not installed; names those that are.
    """
    selected = select_papers(papers)
    if not selected:
        line = f"No paper is installed: no package offers an entry point {GROUP!r}. For example: pip install tnt-vit"
        return Report("effkit reproduce", lines=[line], exit_code=1)
    output = Path(output).resolve()
    output.mkdir(parents=True, exist_ok=True)
    run = run_here if serial else run_in_subprocess
    results = []
    with display() as shown:
        for name in selected:
            shown.start(name)
            results.append(run(name, output, claims, shown))
            shown.finish(name, _in_a_word(results[-1]))
    # Imported now: torch takes seconds to load, and the papers' processes load their own.
    from effkit.device import environment
    from effkit.html import render_html

    document: dict[str, Any] = {
        "title": "effkit reproduce",
        "effkit": package_version("effkit"),
        "commit": commit_hash(),
        "date": now(),
        "environment": environment(),
        "exit_code": int(any(_failed(r) for r in results)),
        "papers": results,
    }
    page = render_html(document, output)
    files = [write_json(output / "results.json", document), write_text(output / "index.html", page)]
    return Report(
        title="effkit reproduce",
        tables=[_summary(results)],
        data=document,
        files=files,
        lines=[line for result in results for line in _what_failed(result)],
        exit_code=document["exit_code"],
    )


def _all_outcomes(result: dict[str, Any]) -> list[Outcome]:
    claim = result["claim"] or {"outcomes": []}
    return [Outcome.from_dict(o) for o in [*result["outcomes"], *claim["outcomes"]]]


def _failed(result: dict[str, Any]) -> bool:
    return result["status"] == "crashed" or any(o.verdict == "differs" for o in _all_outcomes(result))


def _counted(counts: dict[str, int]) -> str:
    words = {"differs": "differ"}
    return ", ".join(f"{n} {words.get(word, word)}" for word, n in counts.items() if n) or "no rows"


def _in_a_word(result: dict[str, Any]) -> str:
    if result["status"] == "crashed":
        return f"crashed: {result['reason']}"
    counts = count_verdicts(_all_outcomes(result))
    return f"{_counted(counts)} ({result['seconds']:.0f} s)"


def _what_failed(result: dict[str, Any]) -> list[str]:
    lines = []
    if result["status"] == "crashed":
        lines.append(f"{result['name']} crashed: {result['reason']}")
    for o in _all_outcomes(result):
        if o.verdict == "differs":
            ours, paper = format_cell(o.ours) or "none", format_cell(o.paper)
            lines.append(
                f"{result['name']}, table {o.table}, {o.name}, {o.metric}: {ours}, expected {paper}: {o.reason}"
            )
    return lines


def _summary(results: list[dict[str, Any]]) -> Table:
    columns = ["paper", "match", "differ", "not measured here", "claim", "seconds", "verdict"]
    table = Table("Papers", columns)
    for result in results:
        counts = count_verdicts(_all_outcomes(result))
        verdict = "crashed" if result["status"] == "crashed" else "differs" if _failed(result) else "holds"
        seconds = result["seconds"]
        figures = [counts["match"], counts["differs"], counts["not measured here"]]
        table.rows.append([result["name"], *figures, result["claim_status"], seconds, verdict])
    return table
