"""Whole runs of seconds to minutes timed in turns: no warm-up and no repeats, which calls of milliseconds need."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from effkit.errors import UserError
from effkit.timing import Comparison, Quantiles, Timing

__all__ = ["in_turns"]


def in_turns(runs: Mapping[str, Callable[[], Any]], rounds: int, threads: int = 1) -> Comparison:
    """Time runs against each other, one call of each a round, every other round backwards.

    Args:
        runs: Name to function without arguments.
        rounds: How often.
        threads: CPU threads of each, for the record.

    Raises:
        UserError: If there is nothing to run, or no round.
    """
    if not runs or isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise UserError(f"rounds={rounds!r} must be a whole number of at least 1, and there must be something to time")
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in runs if number % 2 == 0 else reversed(list(runs)):
            start = time.perf_counter()
            runs[name]()
            samples[name].append(time.perf_counter() - start)
    timings = {name: Timing(*Quantiles.of(s), rounds, samples=tuple(s)) for name, s in samples.items()}
    return Comparison(timings, "cpu", threads, "interleaved", "wall")
