"""Runs each paper in a process of its own, so that one that crashes does not take the others with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from effkit._worker import RESULT, run_paper
from effkit.progress import Display

__all__ = ["run_here", "run_in_subprocess"]

LOG = "log.txt"
_TAIL_LINES = 25


def _crashed(name: str, reason: str, log: str, seen: dict[str, Any] | None = None) -> dict[str, Any]:
    """The result of a paper that did not come to its end; keeps the rows of one that got so far."""
    blank: dict[str, Any] = dict.fromkeys(("title", "reference", "distribution", "version", "command"), "")
    result = {"name": name, **blank, "outcomes": [], "claim": None, "claim_status": "not run", "seconds": 0.0}
    result |= seen or {}
    if result["claim_status"] == "running":
        result["claim_status"] = "crashed"
    return result | {"status": "crashed", "reason": reason, "log": log}


def run_here(name: str, output: Path, claims: bool, shown: Display) -> dict[str, Any]:
    """Run a paper in this process, e.g. under a debugger; only exceptions are caught."""
    try:
        return run_paper(name, output, claims, lambda text, fraction: shown.update(name, text, fraction))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return _crashed(name, reason, traceback.format_exc())


def run_in_subprocess(name: str, output: Path, claims: bool, shown: Display) -> dict[str, Any]:
    """Run a paper in a process of its own.

    Its output goes to `output/NAME/log.txt`. An exception here, Ctrl-C above all, ends the process and all it started.

    Args:
        name: Name of its entry point.
        output: Folder of the whole report.
        claims: Also run its claim.
        shown: Told the progress.

    Returns:
        Its result; if it crashed, how, and the end of its log.
    """
    start = time.perf_counter()
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    result_path = folder / RESULT
    result_path.unlink(missing_ok=True)
    # -P: a random.py or torch.py in the working directory must not be imported instead of the real one.
    command = [sys.executable, "-P", "-X", "faulthandler", "-m", "effkit._worker", name, str(output)]
    if not claims:
        command.append("--no-claims")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    with open(folder / LOG, "wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # its own process group: it is ended with everything it started
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    event = json.loads(line)
                    shown.update(name, event["text"], event["fraction"])
            code = process.wait()
        except BaseException:
            _end(process)
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()
    seen = None
    with contextlib.suppress(OSError, ValueError):
        seen = json.loads(result_path.read_text(encoding="utf-8"))
    if code == 0 and seen is not None:
        return seen
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    result = _crashed(name, _how_it_ended(code, lines), "\n".join(lines[-_TAIL_LINES:]), seen)
    return result | {"seconds": round(time.perf_counter() - start, 1)}


def _how_it_ended(code: int, log: list[str]) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
        return f"killed by signal {-code}"
    if code == 1 and log and "Traceback (most recent call last):" in log:
        return log[-1]  # the exception's own line
    return f"ended early with exit code {code}"


def _end(process: subprocess.Popen[str]) -> None:
    """Terminate the process group, and kill what is left of it after five seconds."""
    for name in ("SIGTERM", "SIGKILL"):
        with contextlib.suppress(OSError):  # already gone
            if hasattr(os, "killpg"):
                os.killpg(process.pid, getattr(signal, name))
            else:
                process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
