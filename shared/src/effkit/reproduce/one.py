"""Runs one paper: its rows, then its laptop-scale claim. As a program, in a process of its own.

`python -m effkit._worker NAME FOLDER [--no-claims]` reports progress as JSON lines on standard output and writes
FOLDER/NAME/result.json: once when the rows are done, and again when the claim is, so that a claim that takes the
process down leaves the rows. Whatever the paper's code prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from effkit._provenance import package_version
from effkit.papers import Claim, Paper, load_paper, select_papers
from effkit.progress import listening
from effkit.report import write_json
from effkit.rows import Outcome, evaluate

__all__ = ["RESULT", "default_command", "run_claim", "run_paper"]

RESULT = "result.json"
Send = Callable[[str, "float | None"], None]
_ROWS_SHARE = 0.2  # of the progress bar, where a claim follows


def default_command(paper: Paper, outcome: Outcome) -> str:
    """The command that re-runs a row: its own, or the paper's with its table selected."""
    if outcome.command or not paper.command:
        return outcome.command
    return f"{paper.command} claim=true" if outcome.table == "claim" else f"{paper.command} table={outcome.table}"


def run_claim(paper: Paper, folder: Path, send: Send) -> Claim:
    """Run a paper's claim in a folder of its own; what it tells `report_progress` goes to `send`."""
    assert paper.claim is not None
    folder.mkdir(parents=True, exist_ok=True)
    with listening(send):
        claim = paper.claim(folder)
    if not isinstance(claim, Claim):
        raise TypeError(f"the claim of {paper.name} must return an effkit Claim, got {type(claim).__name__}")
    for outcome in claim.rows:
        outcome.command = default_command(paper, outcome)
    return claim


def claim_to_dict(claim: Claim, output: Path, seconds: float) -> dict[str, Any]:
    """A claim as plain values, paths relative to `output`."""
    return {
        "outcomes": [o.to_dict() for o in claim.rows],
        "figures": [Path(os.path.relpath(f, output)).as_posix() for f in claim.figures],
        "tables": [t.to_dict() for t in claim.tables],
        "notes": list(claim.notes),
        "seconds": round(seconds, 1),
    }


def run_paper(name: str, output: Path, claims: bool, send: Send) -> dict[str, Any]:
    """Run one installed paper.

    Args:
        name: Name of its entry point.
        output: Folder of the whole report; this paper writes into `output / name`.
        claims: Also run its claim.
        send: Told the progress.

    Returns:
        The result, as `result.json` holds it. An exception in the claim is part of it; one outside of it is raised.
    """
    start = time.perf_counter()
    folder = output / name
    send("loading", None)
    paper = load_paper(select_papers(name)[name])
    with_claim = claims and paper.claim is not None
    share = _ROWS_SHARE if with_claim else 1.0

    def row_progress(index: int, total: int, row: Any) -> None:
        send(f"row {index + 1} of {total}: {row.name} {row.metric}", share * index / total)

    outcomes = evaluate(paper.rows(), progress=row_progress)
    for outcome in outcomes:
        outcome.command = default_command(paper, outcome)
    result: dict[str, Any] = {
        "name": name,
        "title": paper.title,
        "reference": paper.reference,
        "distribution": paper.distribution,
        "version": package_version(paper.distribution),
        "command": paper.command,
        "status": "ok",
        "reason": "",
        "log": "",
        "outcomes": [o.to_dict() for o in outcomes],
        "claim": None,
        "claim_status": "running" if with_claim else "none" if paper.claim is None else "not run",
        "seconds": round(time.perf_counter() - start, 1),
    }
    write_json(folder / RESULT, result)
    if with_claim:

        def claim_progress(text: str, fraction: float | None) -> None:
            send(f"claim: {text}", None if fraction is None else share + (1 - share) * fraction)

        claim_progress("running", None)
        claim_start = time.perf_counter()
        try:
            claim = run_claim(paper, folder / "claim", claim_progress)
        except Exception as error:  # the rows are worth keeping
            traceback.print_exc()
            result |= {"status": "crashed", "claim_status": "crashed", "log": traceback.format_exc()}
            result["reason"] = f"claim crashed: {type(error).__name__}: {error}".splitlines()[0]
        else:
            result["claim"] = claim_to_dict(claim, output, time.perf_counter() - claim_start)
            failed = any(o.verdict == "differs" for o in claim.rows)
            result["claim_status"] = "does not hold" if failed else "holds"
        result["seconds"] = round(time.perf_counter() - start, 1)
        write_json(folder / RESULT, result)
    return result


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent is gone, however it went; elsewhere do nothing."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main(arguments: list[str]) -> None:
    """Run as a program; see the module's docstring."""
    _die_with_parent()
    name, output, *flags = arguments
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # standard output is for events only: everything printed from here on, also by C code, is log

    def send(text: str, fraction: float | None) -> None:
        events.write(json.dumps({"text": text, "fraction": fraction}) + "\n")
        events.flush()

    run_paper(name, Path(output), "--no-claims" not in flags, send)


if __name__ == "__main__":
    main(sys.argv[1:])
