"""All installed papers in one report: what `effkit reproduce` does.

The rows and the claim of each paper run in processes of their own with one thread, several at once, on an executor of
`effkit.executors`. What an earlier run into the same folder finished is kept as long as nothing it depends on has
changed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from effkit.arguments import check_arguments
from effkit.errors import UserError
from effkit.executors import Choice, SerialExecutor, Task, one_thread, run
from effkit.lock import locked
from effkit.outputs import check_output_folder
from effkit.papers import GROUP, select_papers
from effkit.progress import Display, display
from effkit.provenance import commit_hash, now, package_version
from effkit.report import Report, write_json, write_text
from effkit.reproduce.board import Board
from effkit.reproduce.one import PARTS, Wanted, run_part, stamp_of
from effkit.reproduce.resume import forget, kept_result
from effkit.reproduce.summary import failed, in_a_word, summary_table, what_failed
from effkit.reproduce.worker import work

__all__ = ["reproduce_all"]


def reproduce_all(
    output: str | Path,
    papers: str | Iterable[str] | None = None,
    claims: bool = True,
    full: bool = False,
    jobs: int | None = None,
    fresh: bool = False,
    serial: bool = False,
    executor: str = "process",
    workers: int | None = None,
    ray: Mapping[str, Any] | None = None,
    submitit: Mapping[str, Any] | None = None,
) -> Report:
    """Check every installed paper and write one report: what `effkit reproduce` does.

    A paper that crashes is reported as crashed, with the end of its log, and the others still run.

    Args:
        output: Folder for `index.html`, `results.json` and one folder per paper. A second run into it goes on where the
            first one was stopped.
        papers: Names of papers; all installed ones if `None`.
        claims: Also run the laptop-scale claims, not only the rows (seconds).
        full: The claims' full forms (up to six minutes each) instead of the short ones (up to one).
        jobs: Another name of `workers`.
        fresh: Keep nothing of earlier runs.
        serial: Another name of `executor="serial"`.
        executor: Where rows and claims run, see :class:`effkit.executors.Choice`; ``"serial"`` is this process, e.g.
            under a debugger, and a crash of one paper then ends all.
        workers: How many rows or claims at once, each with one thread; one a core if `None`.
        ray: Options of ``executor="ray"``.
        submitit: Options of ``executor="submitit"``.

    Returns:
        The summary; exit code 1 if a checked figure differs, a claim does not hold, a paper crashes, or there is none.

    Raises:
        UserError: If a paper asked for is not installed (names those that are), `workers` does not fit, the executor
            cannot be had, or another run holds the folder.
    """
    given = {"papers": papers, "jobs": jobs, "claims": claims, "full": full, "fresh": fresh, "serial": serial}
    check_arguments(reproduce_all, given)
    wanted = Wanted(check_output_folder("output", output).resolve(), claims, full)
    selected = list(select_papers(papers))
    if not selected:
        line = f"No paper is installed: no package offers an entry point {GROUP!r}. For example: pip install tnt-vit"
        return Report("effkit reproduce", lines=[line], exit_code=1)
    choice = _choice(jobs, serial, executor, workers, ray, submitit)
    jobs = choice.count(len(selected) * (2 if claims else 1))
    wanted.output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with display() as shown, locked(wanted.output, shown.note):
        results = _run(selected, wanted, choice, fresh, shown)
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


def _choice(
    jobs: int | None,
    serial: bool,
    executor: str,
    workers: int | None,
    ray: Mapping[str, Any] | None,
    submitit: Mapping[str, Any] | None,
) -> Choice:
    """What was chosen, under whichever name."""
    if jobs is not None and workers is not None and jobs != workers:
        raise UserError(f"jobs={jobs!r} and workers={workers!r} are two names of one number: give one of them")
    name, count = ("workers", workers) if workers is not None else ("jobs", jobs)
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise UserError(f"{name}={count!r}: it must be a whole number of at least 1; leave it out for one a core")
    if serial and executor not in ("process", "serial"):
        raise UserError(f"executor={executor} does not go with serial=true, which is executor=serial: give one of them")
    if serial and count not in (None, 1):
        raise UserError(f"{name}={count} does not go with serial=true, which runs one after the other: leave it out")
    return Choice("serial" if serial else executor, count, ray=ray or {}, submitit=submitit or {})


def _run(names: Sequence[str], wanted: Wanted, choice: Choice, fresh: bool, shown: Display) -> list[dict[str, Any]]:
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
    left = [name for name in names if name not in results]
    if left:
        board = Board(left, wanted, notes, shown)
        try:
            _compute(left, wanted, choice, board, shown.note)
        finally:
            board.close()
        results |= board.results
    return [results[name] for name in names]


def _compute(names: Sequence[str], wanted: Wanted, choice: Choice, board: Board, tell: Callable[[str], None]) -> None:
    """Run rows and claims of papers. On several workers the claims, which take minutes, begin before the rows."""
    parts = PARTS if wanted.claims else PARTS[:1]
    here = choice.executor == "serial"
    order = [(n, p) for n in names for p in parts] if here else [(n, p) for p in reversed(parts) for n in names]
    tasks = [Task(f"{name}: {part}", name, part, wanted) for name, part in order]

    def in_this_process(name: str, part: str, wanted: Wanted) -> dict[str, Any] | None:
        return run_part(name, part, wanted, partial(board.tell, name, part))

    pool = replace(choice, folder=wanted.output / "jobs").open(tasks=len(tasks), fresh=True, threads_each=1, tell=tell)
    # A serial executor is also what a worker gets: then this process computes with one thread, as the others do.
    with pool, one_thread() if isinstance(pool, SerialExecutor) else contextlib.nullcontext():
        for _ in run(
            pool,
            in_this_process if isinstance(pool, SerialExecutor) else work,
            tasks,
            keep_going=True,
            finished=lambda number, found: board.receive(*order[number], found),
            meanwhile=board.look,
            progress=False,
        ):
            pass


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
