"""When this process stops after it was asked to: at once, or where nothing is lost.

Signals reach a process anywhere. A training that keeps its state after every step wants to come to the end of the step
first; everything else stops where it is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

__all__ = [
    "STOP_SIGNALS",
    "Stop",
    "Terminated",
    "current",
    "deferred",
    "end_now",
    "heard",
    "in_force",
    "last_words",
    "name_of",
]

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
"""Ctrl-C; ``kill``, ``timeout`` and ``scancel``; a closed terminal; warnings of SLURM, submitit and Lightning."""

IMPATIENT = 1.0
"""Seconds after which a second Ctrl-C is another one, and does not wait."""


class Terminated(KeyboardInterrupt):
    """A signal other than Ctrl-C, raised where the program was; clean-up written for Ctrl-C runs for it as well."""


class Stop:
    """Which signals asked this process to stop, and whether it waits for a good moment.

    Attributes:
        received: The first signal; ``None`` while nobody has asked.
        all: All of them, in order.
        at: When the first came, on the clock of ``time.monotonic``.
        before: Handlers that were in force, by signal.
        first: Called with the signal before it raises for the first time.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.all: list[int] = []
        self.at = 0.0
        self.pid = os.getpid()
        self.before: dict[int, Any] = {}
        self.first: list[Callable[[int], None]] = []
        self.beat = 0.0
        self._calling = False

    def alive(self) -> None:
        """Give a sign of life: what waits for a good moment to stop is getting there."""
        self.beat = time.monotonic()

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Note the signal, and raise in the main thread unless the end of a step is waited for.

        A forked worker that is told to stop just stops.
        """
        if os.getpid() != self.pid and signum != signal.SIGINT:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
            return
        again = signum == signal.SIGINT and self.received is not None and time.monotonic() - self.at > IMPATIENT
        self.all.append(signum)
        if self.received is None:
            self.received, self.at = signum, time.monotonic()
            self._calling = True
            for call in self.first:
                call(signum)
            self._calling = False
        elif self._calling:
            return
        if not _DEFERRED or again:
            raise self.error()

    def error(self) -> KeyboardInterrupt:
        """What is raised for it."""
        return KeyboardInterrupt() if self.received in (None, signal.SIGINT) else Terminated()

    @property
    def exit_code(self) -> int:
        """128 + signal, the shell's convention: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.received or signal.SIGINT)


# The handler that is in force, and how many blocks wait for the end of a step.
_CURRENT: list[Stop] = []
_DEFERRED: list[None] = []
_LAST_WORDS: list[Callable[[str, str], None]] = []


@contextlib.contextmanager
def in_force(stop: Stop) -> Iterator[Stop]:
    """Make it the handler that :func:`current` finds inside the block."""
    _CURRENT.append(stop)
    try:
        yield stop
    finally:
        _CURRENT.remove(stop)


def current() -> Stop | None:
    """The handler in force, if there is one."""
    return _CURRENT[-1] if _CURRENT else None


@contextlib.contextmanager
def deferred() -> Iterator[Stop | None]:
    """Inside the block signals are noted and do not raise; whoever is inside asks now and then.

    Yields:
        What notes them; ``None`` where nobody listens to signals (a notebook), who then raise as ever.
    """
    _DEFERRED.append(None)
    try:
        yield current()
    finally:
        _DEFERRED.pop()


@contextlib.contextmanager
def last_words(write: Callable[[str, str], None]) -> Iterator[None]:
    """Let ``write(status, reason)`` have the last word inside the block, should the process have to end at once."""
    _LAST_WORDS.append(write)
    try:
        yield
    finally:
        _LAST_WORDS.remove(write)


def end_now(status: str, reason: str, code: int) -> None:
    """End this process without unwinding it, for a main thread that sits in a library and cannot be reached.

    Args:
        status: ``"failed"`` or ``"interrupted"``.
        reason: One line.
        code: Exit code.
    """
    for write in reversed(_LAST_WORDS):
        with contextlib.suppress(Exception):
            write(status, reason)
    with contextlib.suppress(Exception):
        print(reason, file=sys.stderr, flush=True)
    os._exit(code)


@contextlib.contextmanager
def heard(stuck: float = 20.0, still: float = 120.0) -> Iterator[None]:
    """See to it that a signal ends the process even where the main thread sits in a library that waits for others.

    Python runs a handler when the library returns, which it never does where the process that it waits for is gone.

    Args:
        stuck: Seconds until the handler must have run.
        still: Seconds after that without a sign of life, :meth:`Stop.alive`.
    """
    stop = current()
    if stop is None or threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    over = threading.Event()

    def listen() -> None:
        signum = next((s for s in iter(lambda: _byte(read), 0) if name_of(s) in STOP_SIGNALS), 0)
        if not signum:
            return
        over.wait(stuck)
        if stop.received is not None:
            while time.monotonic() - max(stop.at, stop.beat) < still and not over.wait(still / 4):
                pass
        if not over.is_set():
            end_now("interrupted", f"ended by {name_of(signum)} while it waited for other processes", 128 + signum)

    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    thread = threading.Thread(target=listen, daemon=True, name="effkit-signals")
    thread.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        os.close(write)
        thread.join()
        os.close(read)


def _byte(read: int) -> int:
    """The next byte of a pipe; 0 at its end."""
    got = os.read(read, 1)
    return got[0] if got else 0


def name_of(signum: int) -> str:
    """``SIGTERM`` for 15."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"
