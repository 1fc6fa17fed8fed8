"""All installed papers in one report: what `effkit reproduce` does.

Each paper runs in a process of its own with one thread, several at once. What an earlier run into the same folder
finished is kept as long as nothing it depends on has changed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from effkit.arguments import check_arguments
from effkit.errors import UserError
from effkit.lock import locked
from effkit.outputs import check_output_folder
from effkit.papers import GROUP, select_papers
from effkit.progress import Display, display
from effkit.provenance import commit_hash, now, package_version
from effkit.report import Report, write_json, write_text
from effkit.reproduce.one import Wanted, stamp_of
from effkit.reproduce.pool import run_together
from effkit.reproduce.resume import forget, kept_result
from effkit.reproduce.runner import run_here, run_in_subprocess
from effkit.reproduce.summary import failed, in_a_word, summary_table, what_failed
from effkit.reproduce.threads import choose_jobs, one_thread

__all__ = ["reproduce_all"]


def reproduce_all(
    output: str | Path,
    papers: str | Iterable[str] | None = None,
    claims: bool = True,
    full: bool = False,
    jobs: int | None = None,
    fresh: bool = False,
    serial: bool = False,
) -> Report:
    """Check every installed paper and write one report: what `effkit reproduce` does.

    A paper that crashes is reported as crashed, with the end of its log, and the others still run.

    Args:
        output: Folder for `index.html`, `results.json` and one folder per paper. A second run into it goes on where the
            first one was stopped.
        papers: Names of papers; all installed ones if `None`.
        claims: Also run the laptop-scale claims, not only the rows (seconds).
        full: The claims' full forms (up to six minutes each) instead of the short ones (up to one).
        jobs: How many papers at once, each with one thread; one a core if `None`.
        fresh: Keep nothing of earlier runs.
        serial: Run the papers in this process instead, e.g. under a debugger; a crash of one then ends all.

    Returns:
        The summary; exit code 1 if a checked figure differs, a claim does not hold, a paper crashes, or there is none.

    Raises:
        UserError: If a paper asked for is not installed (names those that are), `jobs` does not fit, or another run
            holds the folder.
    """
    given = {"papers": papers, "jobs": jobs, "claims": claims, "full": full, "fresh": fresh, "serial": serial}
    check_arguments(reproduce_all, given)
    wanted = Wanted(check_output_folder("output", output).resolve(), claims, full)
    selected = list(select_papers(papers))
    if not selected:
        line = f"No paper is installed: no package offers an entry point {GROUP!r}. For example: pip install tnt-vit"
        return Report("effkit reproduce", lines=[line], exit_code=1)
    if serial and jobs not in (None, 1):
        raise UserError(
            f"jobs={jobs!r} does not go with serial=true, which runs one paper after the other: leave it out"
        )
    jobs = 1 if serial else choose_jobs(jobs, len(selected))
    wanted.output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with display() as shown, locked(wanted.output, shown.note):
        results = _run(selected, wanted, jobs, fresh, serial, shown)
        # Imported now: torch takes seconds to load, and the papers' processes load their own.
        from effkit.device import environment

        document: dict[str, Any] = {
            "title": "effkit reproduce",
            "effkit": package_version("effkit"),
            "commit": commit_hash(),
            "date": now(),
            "claims": claims,
            "full": full,
            "jobs": jobs,
            "seconds": round(time.perf_counter() - start, 1),
            "environment": environment(),
            "exit_code": int(any(failed(r) for r in results)),
            "papers": results,
        }
        return _report(document, wanted.output)


def _run(
    names: Sequence[str], wanted: Wanted, jobs: int, fresh: bool, serial: bool, shown: Display
) -> list[dict[str, Any]]:
    """The results in the order of the names: kept ones and those computed now."""
    results: dict[str, dict[str, Any]] = {}
    notes: dict[str, str] = {}
    for name in names:
        if fresh:
            forget(wanted.output / name)
        kept, notes[name] = kept_result(wanted.output / name, stamp_of(name, wanted.full), wanted.claims)
        if kept is not None:
            results[name] = kept | {"kept": True}
            shown.finish(name, in_a_word(results[name]))

    def run(name: str, stop: threading.Event) -> dict[str, Any]:
        shown.start(name)
        if notes[name]:
            shown.note(f"{name}: {notes[name]}")
        result = (run_here if serial else run_in_subprocess)(name, wanted, shown, stop) | {"note": notes[name]}
        shown.finish(name, in_a_word(result))
        return result

    left = [name for name in names if name not in results]
    if serial:
        with one_thread() if left else contextlib.nullcontext():
            results |= {name: run(name, threading.Event()) for name in left}
    elif left:
        results |= run_together(left, min(jobs, len(left)), run)
    return [results[name] for name in names]


def _report(document: dict[str, Any], output: Path) -> Report:
    from effkit.reproduce.page import render_html

    results = document["papers"]
    files = [
        write_json(output / "results.json", document),
        write_text(output / "index.html", render_html(document, output)),
    ]
    return Report(
        title="effkit reproduce",
        tables=[summary_table(document)],
        data=document,
        files=files,
        lines=[line for result in results for line in what_failed(result)],
        exit_code=document["exit_code"],
    )
