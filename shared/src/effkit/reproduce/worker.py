"""The process of one paper: `python -m effkit.reproduce.worker NAME FOLDER PARENT [--no-claims] [--full]`.

It reports progress as JSON lines on standard output and writes FOLDER/NAME/result.json. Whatever the paper's code
prints goes to standard error. PARENT is the process it ends with.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from effkit.reproduce.one import Wanted, run_paper


def die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when its parent is gone, however it went; elsewhere do nothing."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it went before we asked
            os._exit(1)


def main(arguments: list[str]) -> None:
    """Run as a program; see the module's docstring."""
    name, output, parent, *flags = arguments
    die_with_parent(int(parent))
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # standard output is for events only: everything printed from here on, also by C code, is log

    def send(text: str, fraction: float | None) -> None:
        events.write(json.dumps({"text": text, "fraction": fraction}) + "\n")
        events.flush()

    run_paper(name, Wanted(Path(output), claims="--no-claims" not in flags, full="--full" in flags), send)


if __name__ == "__main__":
    main(sys.argv[1:])
