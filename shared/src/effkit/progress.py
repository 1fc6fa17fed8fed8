"""Progress of long runs: a bar on a terminal, a line now and then elsewhere, always on standard error.

Code deep inside a run says how far it is with `report_progress`; whoever started the run decides what becomes of it
(nobody listening, it costs nothing).
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
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
    """Shows the progress of several named jobs, which may run at the same time and report from several threads."""

    def start(self, job: str) -> None:
        """A job begins."""

    def update(self, job: str, text: str, fraction: float | None) -> None:
        """It got so far."""

    def finish(self, job: str, text: str) -> None:
        """It ended, so; a job that never began may end at once."""

    def note(self, text: str) -> None:
        """A line that stays."""


class _Lines:
    """For logs: a line when a job starts and ends, and one for each tenth between.

    Tenths that follow each other faster than `least` seconds are left out. A job that does not know how far it is says
    so after `most` seconds of silence.
    """

    def __init__(self, least: float = 2.0, most: float = 30.0) -> None:
        self._least, self._most = least, most
        self._said: dict[str, tuple[float, int]] = {}  # when, and which tenth
        self._lock = threading.Lock()

    def _say(self, job: str, text: str, tenth: int) -> None:
        print(f"{job}: {text}", file=sys.stderr, flush=True)
        self._said[job] = time.monotonic(), tenth

    def start(self, job: str) -> None:
        with self._lock:
            self._say(job, "started", 0)

    def update(self, job: str, text: str, fraction: float | None) -> None:
        with self._lock:
            when, tenth = self._said.get(job, (-math.inf, 0))
            silence = time.monotonic() - when
            if fraction is None:
                if silence >= self._most:
                    self._say(job, text, tenth)
            elif silence >= self._least and int(10 * fraction) > tenth:
                self._say(job, f"{text} ({fraction:.0%})", int(10 * fraction))

    def finish(self, job: str, text: str) -> None:
        with self._lock:
            self._say(job, text, 10)

    def note(self, text: str) -> None:
        with self._lock:
            print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def display() -> Iterator[Display]:
    """Open a display on standard error: one bar a job if it is a terminal, lines otherwise."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.text import Text

    columns = (SpinnerColumn(finished_text=" "), TextColumn("{task.fields[job]}", markup=False), BarColumn(24))
    columns += (TextColumn("{task.description}", markup=False), TimeElapsedColumn())  # type: ignore[assignment]
    with Progress(*columns, console=Console(stderr=True)) as bars:  # has a lock of its own
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
                if job not in tasks:
                    self.start(job)
                bars.update(tasks[job], description=text, total=1.0, completed=1.0)

            def note(self, text: str) -> None:
                bars.console.print(Text(text), soft_wrap=True)

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
