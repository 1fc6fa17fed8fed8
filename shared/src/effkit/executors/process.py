"""Processes on this machine, through loky: each lane is an executor of one process.

One process an executor, because an executor that loses a process gives up all it has: so only the task that the dead
process ran has to run again, and it is known which that was.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import re
import signal
import threading
import time
from concurrent.futures import Future
from typing import Any

from effkit.executors.errors import Stopped, WorkerDied
from effkit.executors.threads import thread_variables
from effkit.executors.worker import Call, begin

__all__ = ["ProcessLane"]

_LOOK = 0.05  # seconds between looks at whether to stop
_PATIENCE = 5.0  # seconds for a process to end by itself


class ProcessLane:
    """One worker process, started at the first call and again after it died.

    Args:
        threads: CPU threads of the process.
        stop: Set to end everything.
        fresh: A process of its own for every call.
    """

    def __init__(self, threads: int, stop: threading.Event, fresh: bool = False) -> None:
        self._threads, self._stop, self._fresh = threads, stop, fresh
        self._pool: Any = None
        self._group: int | None = None  # number of the process, which leads a group of its own

    def call(self, call: Call) -> bytes:
        """Run a call in the process; see :class:`effkit.executors.pool.Lane`."""
        from loky.process_executor import ShutdownExecutorError

        try:
            if self._pool is None:
                self._start()
            answer: bytes = self._wait(self._pool.submit(call))
        except (concurrent.futures.BrokenExecutor, ShutdownExecutorError) as error:
            self._end(at_once=True)
            if self._stop.is_set():
                raise Stopped("the workers are being ended") from None
            raise WorkerDied(_how(str(error))) from None
        except BaseException:
            self._end(at_once=True)
            raise
        if self._fresh:
            self.close()
        return answer

    def close(self) -> None:
        """Let the process end, and end what it left behind."""
        self._end(at_once=self._stop.is_set())

    def _start(self) -> None:
        from loky.backend import get_context
        from loky.process_executor import ProcessPoolExecutor

        # PYTHONSAFEPATH: a random.py or torch.py in the working directory must not be imported instead of the real one.
        # A worker that has grown is not replaced: what it holds (a network, data) is what makes its next task fast.
        environment = {**thread_variables(self._threads), "PYTHONSAFEPATH": "1", "LOKY_MAX_MEMORY_LEAK_SIZE": "1e18"}
        self._pool = ProcessPoolExecutor(
            1, context=get_context("loky"), env=environment, initializer=begin, initargs=(os.getpid(),)
        )
        self._group = self._wait(self._pool.submit(os.getpid))

    def _wait(self, future: Future[Any]) -> Any:
        while not future.done():
            if self._stop.is_set():
                raise Stopped("the workers are being ended")
            concurrent.futures.wait([future], timeout=_LOOK)
        return future.result()

    def _end(self, at_once: bool) -> None:
        pool, group, self._pool, self._group = self._pool, self._group, None, None
        if pool is None:
            return
        if at_once:
            _signal(group, signal.SIGTERM)
            pool.shutdown(wait=True, kill_workers=True)
        else:
            polite = threading.Thread(target=pool.shutdown)
            polite.start()
            end = time.monotonic() + _PATIENCE
            while polite.is_alive() and time.monotonic() < end and not self._stop.is_set():
                polite.join(_LOOK)
            if polite.is_alive():
                _signal(group, getattr(signal, "SIGKILL", signal.SIGTERM))
                polite.join()
        _signal(group, getattr(signal, "SIGKILL", signal.SIGTERM))  # what it started and left behind


def _signal(group: int | None, number: int) -> None:
    if group is not None and hasattr(os, "killpg"):
        with contextlib.suppress(OSError):  # already gone
            os.killpg(group, number)


def _how(message: str) -> str:
    """How a process ended, from loky's message, which has it as ``{SIGKILL(-9)}`` or ``{EXIT(3)}``."""
    found = re.search(r"\{(\w+)\((-?\d+)\)", message)
    if found is None:
        return "it ended early"
    return f"ended early with exit code {found[2]}" if found[1] == "EXIT" else f"killed by {found[1]}"
