"""What happens in a worker, the same under every library: a call arrives as bytes and leaves as bytes."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from effkit.executors.errors import Trace
from effkit.executors.seeding import seeded
from effkit.executors.threads import threads

__all__ = ["Call", "answer", "begin", "in_worker", "opened", "watch"]

_MARK = "EFFKIT_WORKER"
_WATCH_SECONDS = 0.5


@dataclass(frozen=True)
class Call:
    """A call on its way to a worker.

    Attributes:
        payload: Function, arguments and keyword arguments, pickled.
        seed: Names the generators' seed.
        threads: CPU threads to compute with.
        origin: Process to end with, if that runs on the same machine.
        path: Where modules are looked for where the call was made.
    """

    payload: bytes
    seed: str
    threads: int
    origin: int | None = None
    path: tuple[str, ...] = field(default_factory=lambda: tuple(folder for folder in sys.path if folder))

    def __call__(self) -> bytes:
        """Run it; the answer is for :func:`opened`."""
        if self.origin is not None:
            watch(self.origin)
        sys.path += [folder for folder in self.path if folder not in sys.path]  # SLURM does not hand it on
        with _marked(), threads(self.threads), seeded(self.seed):
            return answer(self.payload)

    def checkpoint(self) -> Any:
        """For submitit: a job that is preempted begins again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def in_worker() -> bool:
    """Whether this process is a worker: one that starts workers of its own would take the cores of the others."""
    return os.environ.get(_MARK) == "1"


@contextlib.contextmanager
def _marked() -> Iterator[None]:
    before = os.environ.get(_MARK)
    os.environ[_MARK] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_MARK, None)
        else:
            os.environ[_MARK] = before


def answer(payload: bytes) -> bytes:
    """Call what was pickled, and pickle what it returned or raised."""
    try:
        function, args, kwargs = pickle.loads(payload)
        return pickle.dumps((True, function(*args, **kwargs)), pickle.HIGHEST_PROTOCOL)
    except BaseException as error:  # SystemExit too: a task does not end its worker
        trace = traceback.format_exc()
        try:
            kept: BaseException = pickle.loads(pickle.dumps(error))
        except Exception:  # exceptions of libraries often cannot be pickled, or cannot be made again
            kept = RuntimeError(f"{type(error).__name__}: {error}")
        return pickle.dumps((False, (kept, trace)))


def opened(answered: bytes) -> Any:
    """The value a call returned.

    Raises:
        BaseException: What the call raised, its traceback as the cause.
    """
    good, value = pickle.loads(answered)
    if good:
        return value
    error, trace = value
    raise error from Trace(trace)


def begin(parent: int) -> None:
    """First thing in a process of our own: a group that can be ended as a whole, and that ends with its parent."""
    os.environ.pop("PYTHONSAFEPATH", None)  # was for the start of this process, not for what it starts
    if hasattr(os, "setsid"):  # Ctrl-C reaches the parent alone, which ends its workers
        with contextlib.suppress(OSError):
            os.setsid()
    watch(parent)


_watched: set[int] = set()


def watch(process: int) -> None:
    """End this process, and its group if it leads one, soon after another one of this machine is gone."""
    if process in _watched or process == os.getpid() or not hasattr(os, "killpg"):
        return
    _watched.add(process)
    direct = os.getppid() == process  # then its number cannot be taken by another one unseen

    def look() -> None:
        while os.getppid() == process if direct else _there(process):
            time.sleep(_WATCH_SECONDS)
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=look, name="effkit-watch", daemon=True).start()


def _there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
