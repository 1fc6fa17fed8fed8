"""Progress of long runs: a bar on a terminal, a line now and then elsewhere, always on standard error.

Code deep inside a run says how far it is with `report_progress`; whoever started the run decides what becomes of it
(nobody listening, it costs nothing).
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol

__all__ = ["Display", "display", "listening", "part", "report_progress", "shown"]

Listener = Callable[[str, float | None], None]
_listeners: list[Listener] = []


def report_progress(text: str, fraction: float | None = None) -> None:
    """Say how far a run is.

    Args:
        text: What is going on, e.g. "epoch 3 of 15".
        fraction: How much is done, 0 to 1, if known.
    """
    if _listeners:
        _listeners[-1](text, fraction)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Receive what `report_progress` is told inside the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextlib.contextmanager
def part(name: str, begin: float, end: float) -> Iterator[None]:
    """Let what is reported inside the block fill a part of the whole.

    Args:
        name: Put before the texts; nothing if empty.
        begin: How much of the whole is done when the block begins, 0 to 1.
        end: How much when it ends.
    """
    if not _listeners:
        yield
        return
    whole = _listeners[-1]

    def inside(text: str, fraction: float | None) -> None:
        whole(f"{name}: {text}" if name else text, begin + (end - begin) * (fraction or 0.0))

    whole(name, begin)
    with listening(inside):
        yield


class Display(Protocol):
    """Shows the progress of several named jobs, one after the other."""

    def start(self, job: str) -> None:
        """A job begins."""

    def update(self, job: str, text: str, fraction: float | None) -> None:
        """It got so far."""

    def finish(self, job: str, text: str) -> None:
        """It ended, so."""


class _Lines:
    """For logs: a line when a job starts and ends, and at most one every ten seconds between."""

    def __init__(self, interval: float = 10.0) -> None:
        self._interval = interval
        self._last = time.monotonic()

    def _say(self, job: str, text: str) -> None:
        print(f"{job}: {text}", file=sys.stderr, flush=True)
        self._last = time.monotonic()

    def start(self, job: str) -> None:
        self._say(job, "started")

    def update(self, job: str, text: str, fraction: float | None) -> None:
        if time.monotonic() - self._last >= self._interval:
            self._say(job, text if fraction is None else f"{text} ({fraction:.0%})")

    def finish(self, job: str, text: str) -> None:
        self._say(job, text)


@contextlib.contextmanager
def display() -> Iterator[Display]:
    """Open a display on standard error: bars if it is a terminal, lines otherwise."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(finished_text=" "), TextColumn("{task.fields[job]}", markup=False), BarColumn(24))
    columns += (TextColumn("{task.description}", markup=False), TimeElapsedColumn())  # type: ignore[assignment]
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        class Bars:
            def start(self, job: str) -> None:
                tasks[job] = bars.add_task("starting", total=None, job=job)

            def update(self, job: str, text: str, fraction: float | None) -> None:
                if fraction is None:
                    bars.update(tasks[job], description=text, total=None)
                else:
                    bars.update(tasks[job], description=text, total=1.0, completed=fraction)

            def finish(self, job: str, text: str) -> None:
                bars.update(tasks[job], description=text, total=1.0, completed=1.0)

        yield Bars()


@contextlib.contextmanager
def shown(job: str) -> Iterator[None]:
    """Show what is reported inside the block as a bar, if standard error is a terminal; for commands that take long.

    Args:
        job: Name of the bar.
    """
    if not sys.stderr.isatty():
        yield
        return
    with display() as bars:
        bars.start(job)
        with listening(lambda text, fraction: bars.update(job, text, fraction)):
            yield
        bars.finish(job, "done")
