"""Runs a paper in a process of its own, so that one that crashes does not take the others with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from typing import IO, Any

from effkit.progress import Display
from effkit.provenance import now
from effkit.report import write_json
from effkit.reproduce.one import Wanted, run_paper
from effkit.reproduce.resume import RESULT
from effkit.reproduce.threads import ONE_THREAD

__all__ = ["Stopped", "run_here", "run_in_subprocess"]

LOG = "log.txt"
_TAIL_LINES = 25
_POLL = 0.05  # seconds


class Stopped(Exception):
    """The whole run is being stopped; the paper's process has been ended."""


def run_here(name: str, wanted: Wanted, shown: Display, stop: threading.Event) -> dict[str, Any]:
    """Run a paper in this process, e.g. under a debugger; only exceptions are caught."""
    try:
        return run_paper(name, wanted, lambda text, fraction: shown.update(name, text, fraction))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return _crashed(name, reason, traceback.format_exc())


def run_in_subprocess(name: str, wanted: Wanted, shown: Display, stop: threading.Event) -> dict[str, Any]:
    """Run a paper in a process of its own, with one thread.

    Its output goes to `output/NAME/log.txt`. When it ends, what it started and left behind is ended too.

    Args:
        name: Name of its entry point.
        wanted: What is asked of it.
        shown: Told the progress.
        stop: Set by another thread: end the process and all it started.

    Returns:
        Its result; if it crashed, how, and the end of its log.

    Raises:
        Stopped: If it was ended by `stop`.
    """
    start = time.perf_counter()
    folder = wanted.output / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).unlink(missing_ok=True)
    with open(folder / LOG, "wb") as log:
        process = _start(name, wanted, log)
        reader = threading.Thread(target=_show, args=(process.stdout, name, shown), daemon=True)
        reader.start()
        try:
            while process.poll() is None:
                if stop.wait(_POLL):
                    raise Stopped(name)
        finally:  # also when an exception comes here from outside
            _end(process)
            reader.join(timeout=5)
    seen = None
    with contextlib.suppress(OSError, ValueError):
        seen = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    code = process.returncode
    if code == 0 and seen is not None:
        return seen
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    result = _crashed(name, _how_it_ended(code, lines), "\n".join(lines[-_TAIL_LINES:]), seen)
    result["seconds"] = round(time.perf_counter() - start, 1)
    if seen is not None:
        write_json(folder / RESULT, result)  # the process may have died after it wrote that all is well
    return result


def _start(name: str, wanted: Wanted, log: IO[bytes]) -> subprocess.Popen[str]:
    # -P: a random.py or torch.py in the working directory must not be imported instead of the real one.
    command = [sys.executable, "-P", "-X", "faulthandler", "-m", "effkit.reproduce.worker"]
    command += [name, str(wanted.output), str(os.getpid())]
    command += ([] if wanted.claims else ["--no-claims"]) + (["--full"] if wanted.full else [])
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, **ONE_THREAD, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # its own process group: it is ended with everything it started
    )


def _show(events: IO[str] | None, name: str, shown: Display) -> None:
    """Pass on what the process reports, until nobody holds its standard output any more."""
    assert events is not None
    with events, contextlib.suppress(OSError):
        for line in events:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                event = json.loads(line)
                shown.update(name, event["text"], event["fraction"])


def _end(process: subprocess.Popen[str]) -> None:
    """Terminate the process group, and kill what is left of it: after five seconds, or once the process is gone."""
    for name in ("SIGTERM", "SIGKILL"):
        if name == "SIGTERM" and process.poll() is not None:
            continue  # it ended by itself: what it left behind has nobody to wait for
        with contextlib.suppress(OSError):  # already gone
            if hasattr(os, "killpg"):
                os.killpg(process.pid, getattr(signal, name))
            else:
                process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)


def _crashed(name: str, reason: str, log: str, seen: dict[str, Any] | None = None) -> dict[str, Any]:
    """The result of a paper that did not come to its end; keeps the rows of one that got so far."""
    blank: dict[str, Any] = dict.fromkeys(("title", "reference", "distribution", "version", "command", "note"), "")
    blank |= {"outcomes": [], "claim": None, "claim_status": "not run", "kept": False, "stamp": None}
    result = {"name": name, **blank, "seconds": 0.0, "date": now()} | (seen or {})
    if result["claim_status"] == "running":
        result["claim_status"] = "crashed"
    return result | {"status": "crashed", "reason": reason, "log": log}


def _how_it_ended(code: int, log: list[str]) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
        return f"killed by signal {-code}"
    if code == 1 and log and "Traceback (most recent call last):" in log:
        return log[-1]  # the exception's own line
    return f"ended early with exit code {code}"
