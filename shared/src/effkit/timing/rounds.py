"""Candidates timed in turns: warm-up, interleaved rounds, CUDA events or a monotonic clock."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch

from effkit.device import resolve_device
from effkit.errors import UserError, choose
from effkit.timing.clock import (
    FLUSH_BYTES,
    calls_per_sample,
    cpu_threads,
    event_seconds,
    no_garbage_collection,
    wall_seconds,
)
from effkit.timing.comparison import Comparison, Quantiles, Timing
from effkit.timing.memory import peak_bytes

__all__ = ["compare"]

_LONG = 20.0  # seconds; who took that long to warm up is not called once more to see how long a sample lasts


def compare(
    candidates: Mapping[str, Callable[[], Any]],
    *,
    device: str | torch.device = "cpu",
    warmup: int = 3,
    min_rounds: int = 10,
    min_seconds: float = 1.0,
    max_rounds: int = 1000,
    threads: int | None = None,
    order: Literal["interleaved", "sequential"] = "interleaved",
    clock: Literal["auto", "events", "wall"] = "auto",
    memory: bool = True,
) -> Comparison:
    """Time candidates against each other.

    Every candidate is warmed up, its peak memory taken, and then the rounds begin, with garbage collection off. On the
    CPU a sample repeats the call until it lasts 2 ms. On CUDA a sample is one call between two events, after the L2
    cache has been overwritten; `clock="wall"` includes the time to launch, which is what the user of a small batch
    feels.

    Args:
        candidates: Name to function without arguments; gradients and autocast are theirs to set.
        device: Where they run, as `effkit.device.resolve_device` takes it.
        warmup: Calls before anything is measured, at least 1 (the first call compiles, allocates and loads).
        min_rounds: Rounds at least.
        min_seconds: Go on with rounds until so much time has passed.
        max_rounds: Rounds at most.
        threads: CPU threads during the measurement; as they are if `None`. Restored afterwards.
        order: "interleaved" takes turns, in an order that is drawn for every round (always the same draws) and in which
            nobody follows itself; "sequential" finishes one before the next (its ratios are then not paired).
        clock: "events" (CUDA), "wall" (monotonic clock and synchronisation), or "auto".
        memory: Whether to take peak memory; costs one more call each.

    Returns:
        The comparison.

    Raises:
        UserError: For no candidates, an absent device or counts out of range.
    """
    device = resolve_device(device)
    choose("order", order, ["interleaved", "sequential"])
    choose("clock", clock, ["auto", "events", "wall"])
    if not candidates:
        raise UserError("candidates is empty, give at least one function to time")
    for name, call in candidates.items():
        if not callable(call):
            raise UserError(f"candidates[{name!r}] must be a function without arguments, got {type(call).__name__}")
    for argument, value in (
        ("warmup", warmup),
        ("min_rounds", min_rounds),
        ("threads", 1 if threads is None else threads),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{argument} must be a whole number of at least 1, got {value!r}")
    if isinstance(min_seconds, bool) or not isinstance(min_seconds, int | float) or not min_seconds >= 0:
        raise UserError(f"min_seconds must be a number of at least 0, got {min_seconds!r}")
    if max_rounds < min_rounds:
        raise UserError(f"max_rounds must be at least min_rounds={min_rounds}, got {max_rounds}")
    if clock == "events" and device.type != "cuda":
        raise UserError(f"clock='events' needs a CUDA device, got device={device}; use clock='wall'")
    events = device.type == "cuda" and clock != "wall"
    names = list(candidates)
    with cpu_threads(threads) as used_threads:
        flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device) if events else None
        lasted = {name: _warm_up(candidates[name], warmup) for name in names}
        peaks = {name: peak_bytes(candidates[name], device) if memory else None for name in names}
        short = [name for name in names if device.type == "cpu" and lasted[name] < _LONG]
        calls = {name: calls_per_sample(candidates[name], device) if name in short else 1 for name in names}

        def sample(name: str) -> float:
            if flush is not None:
                return event_seconds(candidates[name], flush)
            return wall_seconds(candidates[name], calls[name], device)

        samples: dict[str, list[float]] = {name: [] for name in names}
        with no_garbage_collection():
            turns = [names] if order == "interleaved" else [[name] for name in names]
            for turn in turns:
                start = time.perf_counter()
                for number, drawn in enumerate(_orders(turn, max_rounds)):
                    if number >= min_rounds and time.perf_counter() - start >= min_seconds:
                        break
                    for name in drawn:
                        samples[name].append(sample(name))
    rounds = min(map(len, samples.values()))
    timings = {
        name: Timing(*Quantiles.of(s), len(s), peaks[name], calls[name], tuple(s[:rounds]))
        for name, s in samples.items()
    }
    return Comparison(timings, str(device), used_threads, order, "events" if events else "wall")


def _orders(names: Sequence[str], rounds: int) -> Iterator[list[str]]:
    """An order for every round: drawn, always the same draws, and nobody follows itself.

    Who comes after itself finds its memory in the caches, who always comes after the same other finds that one's.
    """
    draws = random.Random(0)
    order = list(names)
    for _ in range(rounds):
        yield order
        last = order[-1]
        order = draws.sample(order, len(order))
        while order[0] == last and len(order) > 1:
            order = draws.sample(order, len(order))


def _warm_up(call: Callable[[], Any], times: int) -> float:
    """Call some times; seconds of the last one."""
    for _ in range(times - 1):
        call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
