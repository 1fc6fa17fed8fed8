"""The table at the end of a sweep: one row a job, also of those that failed, and of a sweep that was ended early."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from effkit.cli.job import Outcome
    from effkit.report import Report

__all__ = ["JobRow", "rows_of", "shown", "sweep_table", "told_if_ended"]

# What sums up a run that is no training: the first of these that its figures have.
_HEADLINES = ("test_top1", "test_loss", "perplexity")


@dataclass(frozen=True)
class JobRow:
    """One job.

    Args:
        overrides: The words that made it.
        status: ``finished``, ``failed``, ``interrupted``, ``running`` or ``does not hold``.
        folder: Its folder; empty if it keeps none.
        metric: Name of the figure that sums it up; empty if there is none.
        value: The figure.
    """

    overrides: Sequence[str]
    status: str
    folder: str
    metric: str = ""
    value: float | None = None


def rows_of(outcomes: Sequence[Outcome]) -> list[JobRow]:
    """The rows of jobs that all have an outcome."""
    figures = [headline({} if outcome.report is None else outcome.report.data) for outcome in outcomes]
    return [
        JobRow(outcome.overrides, outcome.status, outcome.run_dir, *figure)
        for outcome, figure in zip(outcomes, figures, strict=True)
    ]


def rows_in(sweep: Path) -> list[JobRow]:
    """The rows of the jobs that have begun, from what their folders say, in the order they began."""
    found = []
    for file in sweep.rglob("status.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            status = json.loads(file.read_text(encoding="utf-8"))
            overrides = _lines(file.parent / ".hydra" / "overrides.yaml")
            figure = headline(_read(file.parent / "metrics.json") if status["status"] == "finished" else {})
            row = JobRow(overrides, str(status["status"]), str(file.parent.absolute()), *figure)
            found.append((_natural(file.parent.relative_to(sweep)), row))
    return [row for _, row in sorted(found, key=lambda pair: pair[0])]


def headline(figures: Mapping[str, Any]) -> tuple[str, float | None]:
    """Name and value of the figure that sums up a run: the best of what its training watched, or that of its test."""
    best = figures.get("best")
    if isinstance(best, Mapping):
        watched = [(name, value) for name, value in best.items() if name != "epoch"]
        if watched:
            return f"best {watched[0][0]}", float(watched[0][1])
    for name in _HEADLINES:
        if isinstance(figures.get(name), (int, float)):
            return name, float(figures[name])
    return "", None


def sweep_table(rows: Sequence[JobRow], title: str = "") -> Report:
    """The table: the words that tell the jobs apart, how each ended, its figure and its folder."""
    from effkit.report import Report, Table

    common = set.intersection(*(set(row.overrides) for row in rows)) if len(rows) > 1 else set()
    names = sorted({row.metric for row in rows if row.metric})
    columns = ["job", "words", "status", *names, *(["folder"] if any(row.folder for row in rows) else [])]
    cells = [
        [
            number,
            " ".join(word for word in row.overrides if word not in common),
            row.status,
            *(row.value if row.metric == name else None for name in names),
            *([shown(row.folder)] if "folder" in columns else []),
        ]
        for number, row in enumerate(rows)
    ]
    lines = [f"all jobs: {' '.join(word for word in rows[0].overrides if word in common)}"] if common else []
    return Report(title or _count(len(rows)), [Table("", columns, cells)], lines=lines)


@contextlib.contextmanager
def told_if_ended(folder: Path, out: TextIO | None) -> Iterator[None]:
    """Run a sweep; if it is ended before all its jobs are, print the table of those that had begun.

    Args:
        folder: The sweep's.
        out: Where tables go; ``None``: standard error, because standard output belongs to a document.
    """
    before = _stamps(folder)
    try:
        yield
    except BaseException:
        if _stamps(folder) != before:  # else no job has begun: what stands there is of an earlier sweep
            rows = rows_in(folder)
            from rich.console import Console

            report = sweep_table(rows, f"{_count(len(rows))} that had begun when the sweep was ended")
            report.print(None if out is not None else Console(stderr=True))
            (out or sys.stderr).flush()
        raise


def _stamps(folder: Path) -> set[tuple[Path, int]]:
    return {(file, file.stat().st_mtime_ns) for file in folder.rglob("status.json")} if folder.is_dir() else set()


def shown(folder: str) -> str:
    """A path as short as it stays true."""
    with contextlib.suppress(ValueError):
        return str(Path(folder).relative_to(Path.cwd()))
    return folder


def _natural(path: Path) -> list[Any]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", str(path)) if part]


def _lines(file: Path) -> list[str]:
    from omegaconf import OmegaConf

    with contextlib.suppress(OSError, ValueError):
        return [str(word) for word in OmegaConf.load(file)]
    return []


def _read(file: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        value = json.loads(file.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else {}
    return {}


def _count(jobs: int) -> str:
    return "1 job" if jobs == 1 else f"{jobs} jobs"
