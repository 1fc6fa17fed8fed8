"""One paper in this process: what `PACKAGE reproduce` prints."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from effkit.arguments import check_arguments
from effkit.errors import UserError, choose
from effkit.executors import one_thread
from effkit.papers import Claim, ClaimRun, Paper, table_names
from effkit.progress import display
from effkit.report import Report
from effkit.reproduce.claims import claim_to_dict, default_command, kept_parts, run_claim
from effkit.reproduce.resume import make_stamp
from effkit.reproduce.summary import count_verdicts, counted
from effkit.rows import Outcome, Row, evaluate, outcome_tables

__all__ = ["paper_report"]

log = logging.getLogger(__name__)


def paper_report(
    paper: Paper,
    table: str | int | Iterable[str | int] | None = None,
    claim: bool = False,
    run_dir: str | Path | None = None,
    full: bool = False,
) -> Report:
    """Check one paper in this process, with one thread: what `PACKAGE reproduce` prints.

    Args:
        paper: The paper.
        table: Only these tables, e.g. 5 or ["table 1", "fig2"]; "claim" runs the claim only.
        claim: Also run the laptop-scale claim.
        run_dir: Where the claim writes; required for it. Parts that an earlier run finished there are kept.
        full: The claim's full form.

    Returns:
        One table per table of the paper; exit code 1 if a checked figure differs or the claim crashes.

    Raises:
        UserError: For a table the paper does not have, or a claim it does not have; names those it has.
    """
    check_arguments(paper_report, {"table": table, "claim": claim, "full": full})
    rows, claim_asked = _select(paper, table)
    claim = claim or claim_asked
    if claim and paper.claim is None:
        raise UserError(f"claim=true: {paper.name} has no laptop-scale claim; leave it out")
    if full and not claim:
        raise UserError("full=true is the full form of the claim: it needs claim=true")
    if claim and run_dir is None:
        raise UserError("run_dir is required to run a claim: it writes its figures there")
    folder = Path(run_dir or ".")
    outcomes, found, crash, seconds = _measure(paper, rows, folder if claim else None, full)
    for outcome in outcomes:
        outcome.command = default_command(paper, outcome)
    report = Report(f"{paper.title}: the paper's figures beside ours", outcome_tables(outcomes))
    report.data = {"paper": paper.name, "outcomes": [o.to_dict() for o in outcomes], "claim": None}
    judged = list(outcomes)
    if found is not None:
        judged += found[0].rows
        _add_claim(report, *found, folder, seconds)
    counts = count_verdicts(judged)
    report.data["summary"] = counts
    report.lines.append(f"{counted(counts)}.")
    if crash:
        report.lines.append(crash)
    report.exit_code = 1 if counts["differs"] or crash else 0
    return report


def _select(paper: Paper, table: str | int | Iterable[str | int] | None) -> tuple[list[Row], bool]:
    """Rows of the tables asked for, and whether the claim is among them."""
    rows, asked = paper.rows(), table_names(table)
    if asked is None:
        return rows, False
    known = [*dict.fromkeys(row.table for row in rows), *(["claim"] if paper.claim is not None else [])]
    if not asked:
        raise UserError(f"table is an empty list: name some of {', '.join(known)}, or leave table= out for all")
    for name in asked:
        choose("table", name, list(dict.fromkeys(known)))
    return [row for row in rows if row.table in asked], "claim" in asked and paper.claim is not None


def _measure(
    paper: Paper, rows: list[Row], folder: Path | None, full: bool
) -> tuple[list[Outcome], tuple[Claim, ClaimRun] | None, str, float]:
    """Evaluate rows and, with a folder, run the claim in it.

    Returns:
        The outcomes; what the claim found; how it crashed; what it took in seconds.
    """
    found, crash = None, ""
    with display() if folder or sys.stderr.isatty() else contextlib.nullcontext() as shown, one_thread():
        if shown is not None:
            shown.start(paper.name)

        def send(text: str, fraction: float | None) -> None:
            if shown is not None:
                shown.update(paper.name, text, fraction)

        outcomes = evaluate(
            rows, progress=lambda i, n, row: send(f"row {i + 1} of {n}: {row.name} {row.metric}", i / n)
        )
        start = time.perf_counter()
        if folder is not None:
            try:
                stamp = make_stamp(paper.distribution, getattr(paper.rows, "__module__", None) or "", full)
                found = run_claim(paper, folder, full, stamp, send)
            except Exception as error:  # the rows are worth printing
                log.warning("the claim of %s crashed", paper.name, exc_info=True)
                crash = f"claim crashed: {type(error).__name__}: {error}".splitlines()[0]
        seconds = time.perf_counter() - start
        if shown is not None:
            shown.finish(paper.name, crash or "done")
    return outcomes, found, crash, seconds


def _add_claim(report: Report, claim: Claim, run: ClaimRun, folder: Path, seconds: float) -> None:
    report.tables += [*outcome_tables(claim.rows), *claim.tables]
    report.files += claim.figures
    report.lines += claim.notes
    if kept := kept_parts(run):
        report.lines.append(f"Kept from an earlier run into this folder: {', '.join(kept)}.")
    report.data["claim"] = claim_to_dict(claim, run, folder, seconds)
