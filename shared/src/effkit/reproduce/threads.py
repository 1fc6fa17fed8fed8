"""One thread a paper: papers run side by side, and figures must not depend on how many cores there are."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from effkit.errors import UserError

__all__ = ["ONE_THREAD", "choose_jobs", "one_thread", "settle_threads"]

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
"""Environment of a process that computes with one thread."""


def settle_threads() -> None:
    """Let torch, where it is loaded, compute with one thread; where it is not, the environment will tell it to."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside the block, in this process and in those it starts."""
    import torch

    threads, before = torch.get_num_threads(), {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def choose_jobs(jobs: int | None, papers: int) -> int:
    """How many papers run at once.

    Args:
        jobs: As asked for; `None` takes one a core that this process may use.
        papers: How many there are to run.

    Raises:
        UserError: If it is no whole number from 1 to the number of papers.
    """
    if jobs is None:
        affinity = getattr(os, "sched_getaffinity", None)  # Linux only
        return max(1, min(papers, len(affinity(0)) if affinity else os.cpu_count() or 1))
    if isinstance(jobs, bool) or not isinstance(jobs, int) or not 1 <= jobs <= papers:
        number = "1: one paper is asked for" if papers == 1 else f"a whole number from 1 to {papers}, one a paper"
        raise UserError(f"jobs={jobs!r}: it must be {number}; leave it out for one a core")
    return jobs
