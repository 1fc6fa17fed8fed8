"""A paper's claim: run in a folder of its own, and turned into plain values."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from effkit.papers import Claim, ClaimRun, Paper
from effkit.progress import listening
from effkit.rows import Outcome

__all__ = ["Send", "claim_to_dict", "default_command", "kept_parts", "run_claim"]

Send = Callable[[str, "float | None"], None]


def default_command(paper: Paper, outcome: Outcome, full: bool = False) -> str:
    """The command that re-runs a row: its own, or the paper's with its table selected."""
    if outcome.command or not paper.command:
        return outcome.command
    if outcome.table != "claim":
        return f"{paper.command} table={outcome.table}"
    return f"{paper.command} claim=true full=true" if full else f"{paper.command} claim=true"


def run_claim(
    paper: Paper, folder: Path, full: bool, stamp: Mapping[str, Any] | None, send: Send
) -> tuple[Claim, ClaimRun]:
    """Run a paper's claim.

    Args:
        paper: The paper; it has a claim.
        folder: Where it writes.
        full: Its full form.
        stamp: What its parts depend on, see `effkit.reproduce.resume`.
        send: Gets what it tells `report_progress`.

    Returns:
        What it found, and the run, which knows its parts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = ClaimRun(folder, full, stamp)
    with listening(send):
        claim = paper.run_claim(run)
    for outcome in claim.rows:
        outcome.command = default_command(paper, outcome, full)
    return claim, run


def kept_parts(run: ClaimRun) -> list[str]:
    """Names of the parts that an earlier run computed."""
    return [part.name for part in run.parts.values() if part.kept]


def claim_to_dict(claim: Claim, run: ClaimRun, output: Path, seconds: float) -> dict[str, Any]:
    """A claim as plain values.

    Args:
        claim: What was found.
        run: The run.
        output: Paths are relative to it.
        seconds: What this run took; what its kept parts took in earlier ones is added.
    """
    earlier = sum(part.seconds for part in run.parts.values() if part.kept)
    return {
        "outcomes": [o.to_dict() for o in claim.rows],
        "figures": [Path(os.path.relpath(f, output)).as_posix() for f in claim.figures],
        "tables": [t.to_dict() for t in claim.tables],
        "notes": list(claim.notes),
        "form": "full" if run.full else "short",
        "kept_parts": kept_parts(run),
        "seconds": round(seconds + earlier, 1),
    }
