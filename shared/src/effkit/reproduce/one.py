"""One installed paper: its rows, and its laptop-scale claim, each for itself, in this process."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effkit.executors import settle_threads
from effkit.papers import Paper, load_paper, select_papers
from effkit.provenance import now, package_version
from effkit.reproduce.claims import Send, claim_to_dict, default_command, run_claim
from effkit.reproduce.resume import CLAIM, make_stamp
from effkit.rows import evaluate

__all__ = ["PARTS", "Wanted", "run_part", "stamp_of"]

PARTS = ("rows", "claim")


@dataclass(frozen=True)
class Wanted:
    """What is asked of every paper.

    Attributes:
        output: Folder of the whole report; a paper writes into `output / name`.
        claims: Also run the claims.
        full: In their full form.
    """

    output: Path
    claims: bool = True
    full: bool = False


def stamp_of(name: str, full: bool) -> dict[str, Any]:
    """What the results of an installed paper depend on; it is not imported."""
    point = select_papers(name)[name]
    return make_stamp(point.dist.name if point.dist is not None else "", point.module, full)


def run_part(name: str, part: str, wanted: Wanted, send: Send) -> dict[str, Any] | None:
    """Run the rows or the claim of an installed paper; parts of its claim that an earlier run finished are kept.

    Args:
        name: Name of its entry point.
        part: ``"rows"`` or ``"claim"``.
        wanted: What is asked.
        send: Told the progress.

    Returns:
        What it adds to the result; the rows say what the paper is. `None` for the claim of a paper that has none. An
        exception in the claim is part of what it adds; one outside of it is raised.
    """
    start = time.perf_counter()
    send("loading", None)
    stamp = stamp_of(name, wanted.full)  # before the import: code that changes later is not what ran
    paper = load_paper(select_papers(name)[name])
    if part == "claim":
        return _claim(paper, wanted, wanted.output / name / CLAIM, stamp, send, start) if paper.claim else None
    result = _described(name, paper, stamp)
    result["outcomes"] = _rows(paper, send)
    result["seconds"] = round(time.perf_counter() - start, 1)
    return result


def _described(name: str, paper: Paper, stamp: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "title": paper.title,
        "reference": paper.reference,
        "distribution": paper.distribution,
        "version": package_version(paper.distribution),
        "command": paper.command,
        "has_claim": paper.claim is not None,
        "date": now(),
        "stamp": stamp,
    }


def _rows(paper: Paper, send: Send) -> list[dict[str, Any]]:
    def progress(index: int, total: int, row: Any) -> None:
        send(f"row {index + 1} of {total}: {row.name} {row.metric}", index / total)

    settle_threads()
    outcomes = evaluate(paper.rows(), progress=progress)
    for outcome in outcomes:
        outcome.command = default_command(paper, outcome)
    return [o.to_dict() for o in outcomes]


def _claim(
    paper: Paper, wanted: Wanted, folder: Path, stamp: dict[str, Any], send: Send, start: float
) -> dict[str, Any]:
    def progress(text: str, fraction: float | None) -> None:
        send(f"claim: {text}", fraction)

    settle_threads()
    progress("running", None)
    begun = time.perf_counter()
    try:
        claim, run = run_claim(paper, folder, wanted.full, stamp, progress)
    except Exception as error:  # the rows are worth keeping
        traceback.print_exc()
        reason = f"claim crashed: {type(error).__name__}: {error}".splitlines()[0]
        seconds = round(time.perf_counter() - start, 1)
        log = traceback.format_exc()
        return {"status": "crashed", "claim_status": "crashed", "reason": reason, "log": log, "seconds": seconds}
    here = time.perf_counter() - begun
    found = claim_to_dict(claim, run, wanted.output, here)
    failed = any(o.verdict == "differs" for o in claim.rows)
    seconds = round(time.perf_counter() - start + max(0.0, found["seconds"] - here), 1)
    return {"claim": found, "claim_status": "does not hold" if failed else "holds", "seconds": seconds}
