"""Peak memory of one call: what the device's allocator handed out, or how far the process's resident set grew."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

__all__ = ["MEMORY_MEANING", "peak_bytes"]

MEMORY_MEANING = {
    "cuda": "growth of the memory torch allocated on the device during one call",
    "cpu": "growth of the process's resident set during one call, exact to about 1 MiB",
}


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int | None:
    """Peak memory one call needs beyond what was held before it, its result included.

    On CUDA it is exact (`max_memory_allocated` less `memory_allocated`). On the CPU it is the growth of the resident
    set of the whole process, because torch's CPU allocator keeps no count: the heap's free memory is given back first
    (glibc) and the kernel's high-water mark is reset where `/proc/self/clear_refs` can be written; otherwise only
    growth beyond the process's earlier peak is seen.

    Args:
        call: What to run, once; run it before, so that one-time work is over.
        device: Where it runs.

    Returns:
        Bytes, or `None` where the system does not tell (other devices; no high-water mark to reset and no new peak).
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = call()
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device) - before
        del result
        return peak
    if device.type != "cpu":
        return None
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    if _reset_high_water_mark():
        before = _status_bytes("VmRSS")
        result = call()
        peak = _status_bytes("VmHWM") - before
        del result
        return max(peak, 0)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = call()
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    del result
    return growth * unit or None


def _reset_high_water_mark() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status_bytes("VmHWM") > 0
    except (OSError, StopIteration):
        return False


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))
