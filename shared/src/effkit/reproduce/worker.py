"""What a worker does for `effkit reproduce`: rows or claim of one paper, its output in a log, its progress in a file.

Files, because they are what every executor has in common, also across machines: the folder of the report is shared by
all that write plots into it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from effkit.reproduce.one import Wanted, run_part

__all__ = ["log_of", "progress_of", "work"]


def log_of(folder: Path, part: str) -> Path:
    """The log of a part of the paper of a folder."""
    return folder / f"log-{part}.txt"


def progress_of(folder: Path, part: str) -> Path:
    """Where a part that runs says how far it is, a JSON line each time."""
    return folder / f"progress-{part}.jsonl"


def work(name: str, part: str, wanted: Wanted) -> dict[str, Any] | None:
    """Run a part of a paper in a worker, see :func:`effkit.reproduce.one.run_part`."""
    folder = wanted.output / name
    folder.mkdir(parents=True, exist_ok=True)
    with open(progress_of(folder, part), "w", encoding="utf-8") as events, _logged(log_of(folder, part)):

        def send(text: str, fraction: float | None) -> None:
            events.write(json.dumps({"text": text, "fraction": fraction}) + "\n")
            events.flush()

        return run_part(name, part, wanted, send)


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send all that is printed to a file, also by C code and by processes started inside the block."""
    before = os.dup(1), os.dup(2)
    with open(path, "ab") as log:  # a second try adds to what the first one left
        _flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        faulthandler.enable(log)
        try:
            yield
        finally:
            _flush()
            faulthandler.disable()
            for number, kept in zip((1, 2), before, strict=True):
                os.dup2(kept, number)
                os.close(kept)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
