"""Threads of a process that computes beside others, and how many cores there are to share."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

__all__ = ["ONE_THREAD", "available_cores", "divided", "one_thread", "settle_threads", "thread_variables", "threads"]

_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"
)  # fmt: skip


def thread_variables(number: int) -> dict[str, str]:
    """Environment of a process that computes with so many threads."""
    return dict.fromkeys(_VARIABLES, str(number))


ONE_THREAD = thread_variables(1)
"""Environment of a process that computes with one thread."""


def available_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def divided(total: int | None, workers: int) -> int:
    """Threads of each of several workers.

    Args:
        total: Threads of all together; ``None``: those of torch where it is loaded, else a thread a core.
        workers: How many share them.
    """
    if total is None:
        torch = sys.modules.get("torch")
        total = torch.get_num_threads() if torch is not None else available_cores()
    return max(1, total // workers)


def settle_threads(number: int = 1) -> None:
    """Let torch, where it is loaded, compute with so many threads; where it is not, the environment will tell it to."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(number)


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Compute with so many threads inside the block, in this process and in those it starts; torch is not imported."""
    torch, before = sys.modules.get("torch"), {name: os.environ.get(name) for name in _VARIABLES}
    used = torch.get_num_threads() if torch is not None else None
    os.environ.update(thread_variables(number))
    settle_threads(number)
    try:
        yield
    finally:
        if used is not None:
            settle_threads(used)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside the block, in this process and in those it starts."""
    import torch  # noqa: F401  now: loaded inside the block it would keep one thread afterwards

    with threads(1):
        yield
