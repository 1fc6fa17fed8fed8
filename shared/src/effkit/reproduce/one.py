"""One installed paper: its rows, then its laptop-scale claim, in this process.

The result is written when the rows are done, and again when the claim is, so that a claim that takes the process down
leaves the rows.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effkit.papers import Paper, load_paper, select_papers
from effkit.provenance import now, package_version
from effkit.report import write_json
from effkit.reproduce.claims import Send, claim_to_dict, default_command, run_claim
from effkit.reproduce.resume import CLAIM, RESULT, make_stamp
from effkit.reproduce.threads import settle_threads
from effkit.rows import evaluate

__all__ = ["Wanted", "run_paper", "stamp_of"]

_ROWS_SHARE = 0.2  # of the progress bar, where a claim follows


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


def run_paper(name: str, wanted: Wanted, send: Send) -> dict[str, Any]:
    """Run one installed paper; parts of its claim that an earlier run finished are kept.

    Args:
        name: Name of its entry point.
        wanted: What is asked.
        send: Told the progress.

    Returns:
        The result, as `result.json` holds it. An exception in the claim is part of it; one outside of it is raised.
    """
    start = time.perf_counter()
    send("loading", None)
    stamp = stamp_of(name, wanted.full)  # before the import: code that changes later is not what ran
    paper = load_paper(select_papers(name)[name])
    with_claim = wanted.claims and paper.claim is not None
    result = _blank(name, paper, stamp, with_claim)
    result["outcomes"] = _rows(paper, _ROWS_SHARE if with_claim else 1.0, send)
    result["seconds"] = round(time.perf_counter() - start, 1)
    path = wanted.output / name / RESULT
    write_json(path, result)
    if with_claim:
        result |= _claim(paper, wanted, path.parent / CLAIM, stamp, send)
        earlier = result.pop("earlier_seconds", 0.0)
        result["seconds"] = round(time.perf_counter() - start + earlier, 1)
        write_json(path, result)
    return result


def _blank(name: str, paper: Paper, stamp: dict[str, Any], with_claim: bool) -> dict[str, Any]:
    return {
        "name": name,
        "title": paper.title,
        "reference": paper.reference,
        "distribution": paper.distribution,
        "version": package_version(paper.distribution),
        "command": paper.command,
        "status": "ok",
        "reason": "",
        "log": "",
        "outcomes": [],
        "claim": None,
        "claim_status": "running" if with_claim else "none" if paper.claim is None else "not run",
        "seconds": 0.0,
        "date": now(),
        "kept": False,
        "note": "",
        "stamp": stamp,
    }


def _rows(paper: Paper, share: float, send: Send) -> list[dict[str, Any]]:
    def progress(index: int, total: int, row: Any) -> None:
        send(f"row {index + 1} of {total}: {row.name} {row.metric}", share * index / total)

    settle_threads()
    outcomes = evaluate(paper.rows(), progress=progress)
    for outcome in outcomes:
        outcome.command = default_command(paper, outcome)
    return [o.to_dict() for o in outcomes]


def _claim(paper: Paper, wanted: Wanted, folder: Path, stamp: dict[str, Any], send: Send) -> dict[str, Any]:
    """What the claim changes in the result."""

    def progress(text: str, fraction: float | None) -> None:
        send(f"claim: {text}", None if fraction is None else _ROWS_SHARE + (1 - _ROWS_SHARE) * fraction)

    settle_threads()
    progress("running", None)
    start = time.perf_counter()
    try:
        claim, run = run_claim(paper, folder, wanted.full, stamp, progress)
    except Exception as error:  # the rows are worth keeping
        traceback.print_exc()
        reason = f"claim crashed: {type(error).__name__}: {error}".splitlines()[0]
        return {"status": "crashed", "claim_status": "crashed", "reason": reason, "log": traceback.format_exc()}
    here = time.perf_counter() - start
    found = claim_to_dict(claim, run, wanted.output, here)
    failed = any(o.verdict == "differs" for o in claim.rows)
    status = "does not hold" if failed else "holds"
    return {"claim": found, "claim_status": status, "earlier_seconds": max(0.0, found["seconds"] - here)}
