"""How one sample of a timing is taken: the clocks, and what must hold still around them."""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

__all__ = ["FLUSH_BYTES", "calls_per_sample", "cpu_threads", "event_seconds", "no_garbage_collection", "wall_seconds"]

_SAMPLE_SECONDS = 2e-3  # a CPU sample lasts at least this long: the clock's own cost (about 50 ns) vanishes in it
_MOST_CALLS = 100_000
FLUSH_BYTES = 256 * 2**20  # larger than the L2 cache of any GPU


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def wall_seconds(call: Callable[[], Any], calls: int, device: torch.device) -> float:
    """Seconds per call by the monotonic clock, over `calls` calls, the device idle before and after."""
    _synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    _synchronize(device)
    return (time.perf_counter() - start) / calls


def event_seconds(call: Callable[[], Any], flush: torch.Tensor) -> float:
    """Seconds the CUDA device took for one call, its L2 cache overwritten before through `flush`."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    with torch.cuda.device(flush.device):
        flush.zero_()
        begin.record()
        call()
        end.record()
        end.synchronize()
    return begin.elapsed_time(end) / 1e3


def calls_per_sample(call: Callable[[], Any], device: torch.device) -> int:
    """How often to repeat a call on the CPU so that a sample lasts long enough for the clock."""
    calls = 1
    while calls < _MOST_CALLS:
        seconds = wall_seconds(call, calls, device) * calls
        if seconds >= _SAMPLE_SECONDS:
            break
        calls = min(_MOST_CALLS, max(2 * calls, math.ceil(calls * _SAMPLE_SECONDS / max(seconds, 1e-9))))
    return calls


@contextlib.contextmanager
def cpu_threads(threads: int | None) -> Iterator[int]:
    """Use so many CPU threads inside the block (as they are if `None`); yields the number in use."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect garbage before the block and not inside it: a collection would hit one candidate and spare the other."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
