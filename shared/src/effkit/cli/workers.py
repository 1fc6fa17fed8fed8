"""Jobs of a sweep that run in processes of a launcher: told to stop when the sweep is, and never left as "running"."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from effkit.atomic import alive
from effkit.stopping import Stop, deferred, name_of

__all__ = ["end_worker", "jobs_settled"]

PATIENCE = 10.0
"""Seconds that jobs have to put their folders in order before joblib kills their workers."""
SECOND_SIGNAL = 3.0
"""Seconds within which SLURM's warning follows SIGTERM where a job is preempted; after ``scancel`` none comes."""

FIRST_TASK = 30.0
"""Seconds that the first task of a job has to put it into the queue again."""


def end_worker(stop: Stop) -> None:
    """End this worker after its job was told to stop, so that it begins no other.

    Under submitit its own handlers decide what becomes of the job; they put it into the queue again where the signal
    says that it was preempted or has no time left.
    """
    if "SUBMITIT_EXECUTOR" not in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(stop.exit_code)
    with deferred():
        deadline = time.monotonic() + SECOND_SIGNAL
        while not _preempted(stop) and time.monotonic() < deadline:
            time.sleep(0.05)
        for signum in dict.fromkeys(stop.all):
            if callable(handler := stop.before.get(signum)):
                handler(signum, None)
        if _preempted(stop):  # submitit leaves that to the job's first task, whose end is the end of this one
            time.sleep(FIRST_TASK)
    raise SystemExit(stop.exit_code)


def _preempted(stop: Stop) -> bool:
    return signal.SIGUSR2 in stop.all or signal.SIGUSR1 in stop.all


@contextlib.contextmanager
def jobs_settled(folder: Path | None, stop: Stop | None) -> Iterator[None]:
    """Run the jobs of a sweep; whatever ends the sweep, no folder says that a job is running which is not.

    Args:
        folder: The sweep's; `None` if it keeps none.
        stop: Notes the signals of this process.
    """
    if folder is None:
        yield
        return

    def pass_on(signum: int) -> None:
        workers = _workers()
        for pid in workers:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and any(s["pid"] in workers for _, s in _running(folder)):
            time.sleep(0.05)

    if stop is not None:
        stop.first.append(pass_on)
    try:
        yield
    except BaseException:
        asked = None if stop is None else stop.received
        _settle(folder, f"the sweep was told to stop by {name_of(asked)}" if asked is not None else "")
        raise
    finally:
        if stop is not None:
            stop.first.remove(pass_on)


def _workers() -> set[int]:
    """Processes of joblib's pool, which kills them without a word when the sweep is told to stop."""
    executor = getattr(sys.modules.get("joblib.externals.loky.reusable_executor"), "_executor", None)
    return set(getattr(executor, "_processes", None) or ())


def _settle(folder: Path, asked: str) -> None:
    from effkit.report import write_json

    deadline = time.monotonic() + 5
    while any(alive(s["pid"]) for _, s in _running(folder)) and time.monotonic() < deadline and _workers():
        time.sleep(0.05)
    for file, status in _running(folder):
        if not alive(status["pid"]):
            now = {"status": "interrupted" if asked else "failed", "error": asked or "its worker process was killed"}
            write_json(file, {**status, **now})


def _running(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Status files that say "running", of other processes of this host."""
    found = []
    for file in folder.glob("*/status.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            status = json.loads(file.read_text(encoding="utf-8"))
            here = status.get("host", platform.node()) == platform.node() and status["pid"] != os.getpid()
            if status.get("status") == "running" and here:
                found.append((file, status))
    return found
