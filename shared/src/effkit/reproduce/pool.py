"""Papers side by side: threads that each wait for the process of one paper."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

__all__ = ["run_together"]


def run_together(
    names: Sequence[str], jobs: int, run: Callable[[str, threading.Event], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Run papers, several at once.

    Args:
        names: Which.
        jobs: How many at once.
        run: Runs one in a process of its own, and ends it once the event is set.

    Returns:
        Results by name, in the order of `names`. An exception here, Ctrl-C above all, ends all that run, starts no
        further one, and is raised.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures = {name: pool.submit(run, name, stop) for name in names}
        try:
            return {name: future.result() for name, future in futures.items()}
        except BaseException:
            stop.set()  # the threads end their processes themselves: a second Ctrl-C does not come in between
            for future in futures.values():
                future.cancel()
            raise
