"""Keep freed memory instead of handing it back to the system after every batch.

Augmenting a batch takes and frees some megabytes a dozen times. By default glibc returns them to the kernel each time,
and a quarter of the time of a batch of small pictures goes into page faults when they are fetched again. The two
thresholds below are what ``MALLOC_TRIM_THRESHOLD_`` and ``MALLOC_MMAP_THRESHOLD_`` set from outside, and whoever has
set one of those is left alone. They hold for the whole process: at most 64 MiB more stay with it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

__all__ = ["KEPT_BYTES", "keep_memory"]

KEPT_BYTES = 64 << 20
_LARGEST_BLOCK = 32 << 20  # the largest glibc lets come from the heap
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of mallopt's parameters


@cache
def keep_memory() -> bool:
    """Raise the thresholds once; called before the first batch on a CPU.

    Returns:
        Whether it was done: not where there is no glibc, nor where the environment sets a threshold.
    """
    if not sys.platform.startswith("linux"):
        return False
    if {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"} & set(os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)) and bool(mallopt(_TRIM_THRESHOLD, KEPT_BYTES))
