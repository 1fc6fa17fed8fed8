"""Fair timing: warm-up, interleaved rounds, CUDA events or a monotonic clock, medians with 20 and 80 % quantiles.

Two programs timed one after the other meet two different machines: clocks drift, neighbours come and go. Here they take
turns, in the order A B, B A, A B ..., and their ratio is formed within each round before the median is taken, so that
what changes slowly cancels. Times alone are for reading; ratios are for claims.

    comparison = compare({"ours": lambda: fast(x), "timm": lambda: slow(x)}, device="cpu")
    comparison.ratio("timm", "ours")      # how many times faster ours is: (median, p20, p80)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from effkit._clock import FLUSH_BYTES, calls_per_sample, cpu_threads, event_seconds, no_garbage_collection, wall_seconds
from effkit._memory import MEMORY_MEANING, peak_bytes
from effkit.device import resolve_device
from effkit.errors import UserError, choose
from effkit.report import Table
from effkit.results import ResultRow, append_csv, read_csv, stamp

__all__ = [
    "Comparison",
    "MachineFloor",
    "Quantiles",
    "ResultRow",
    "Timing",
    "append_csv",
    "compare",
    "machine_floor",
    "read_csv",
]


class Quantiles(NamedTuple):
    """Median with 20 and 80 % quantiles."""

    median: float
    p20: float
    p80: float

    @classmethod
    def of(cls, samples: Any) -> Quantiles:
        """Quantiles of a sequence of numbers, linearly interpolated."""
        p20, median, p80 = np.quantile(np.asarray(samples, dtype=float), [0.2, 0.5, 0.8])
        return cls(float(median), float(p20), float(p80))


@dataclass(frozen=True)
class Timing:
    """Seconds per call of one candidate.

    Args:
        median: Over rounds.
        p20: 20 % quantile.
        p80: 80 % quantile.
        rounds: Number of samples.
        peak_bytes: Memory one call needs beyond what was held before, `None` if unknown (`Comparison.memory_meaning`).
        calls: Calls per sample.
        samples: Seconds per call, round by round.
    """

    median: float
    p20: float
    p80: float
    rounds: int
    peak_bytes: int | None = None
    calls: int = 1
    samples: tuple[float, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Comparison:
    """Timings of candidates measured side by side on one device."""

    timings: dict[str, Timing]
    device: str
    threads: int
    order: str
    clock: str

    @property
    def memory_meaning(self) -> str:
        """What `peak_bytes` means on this device, in words."""
        return MEMORY_MEANING.get(torch.device(self.device).type, "not measured on this device")

    def ratio(self, a: str, b: str) -> Quantiles:
        """Time of `a` over time of `b`, formed round by round: above 1, `b` is faster.

        Args:
            a: A candidate.
            b: Another.

        Returns:
            (median, p20, p80) of the per-round ratios.
        """
        first, second = (self.timings[choose("candidate", name, list(self.timings))].samples for name in (a, b))
        return Quantiles.of([x / y for x, y in zip(first, second, strict=True)])

    def table(self, baseline: str | None = None, title: str = "Time per call") -> Table:
        """Times, spread and memory; with `baseline`, how many times faster than it each candidate is."""
        columns = ["candidate", "median ms", "p20", "p80", "rounds", "peak MiB"]
        rows: list[list[Any]] = []
        for name, t in self.timings.items():
            peak = None if t.peak_bytes is None else round(t.peak_bytes / 2**20, 1)
            rows.append([name, 1e3 * t.median, 1e3 * t.p20, 1e3 * t.p80, t.rounds, peak])
            if baseline is not None:
                ratio = self.ratio(baseline, name)
                rows[-1].append(f"{ratio.median:.2f} ({ratio.p20:.2f} to {ratio.p80:.2f})")
        if baseline is not None:
            columns.append(f"faster than {baseline}")
        machine = stamp(self.device)["machine"]
        note = f"{machine}, {self.threads} thread(s), {self.order} rounds. Peak: {self.memory_meaning}."
        return Table(title, columns, rows, note)

    def rows(
        self,
        *,
        package: str,
        case: str,
        mode: str,
        dtype: str,
        x_name: str = "batch",
        x: float = 1,
        baseline: str | None = None,
        note: str = "",
    ) -> list[ResultRow]:
        """The figures in the results schema: time (s), peak memory (bytes) and, with `baseline`, paired time ratios.

        A ratio's row has the provider "NAME" and the metric "speedup_over_BASELINE".
        """
        where: dict[str, Any] = stamp(self.device)
        rows: list[ResultRow] = []

        def add(
            provider: str, metric: str, unit: str, q: tuple[float, float | None, float | None], rounds: int
        ) -> None:
            what = (package, case, provider, mode, dtype, x_name, x, metric, unit, *q)
            rows.append(ResultRow(*what, threads=self.threads, rounds=rounds, note=note, **where))

        for name, t in self.timings.items():
            add(name, "time", "s", (t.median, t.p20, t.p80), t.rounds)
            if t.peak_bytes is not None:
                add(name, "peak_memory", "bytes", (t.peak_bytes, None, None), 1)
            if baseline is not None and name != baseline:
                add(name, f"speedup_over_{baseline}", "x", self.ratio(baseline, name), t.rounds)
        return rows


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
        order: "interleaved" takes turns; "sequential" finishes one before the next (its ratios are then not paired).
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
        if value < 1:
            raise UserError(f"{argument} must be at least 1, got {value}")
    if max_rounds < min_rounds:
        raise UserError(f"max_rounds must be at least min_rounds={min_rounds}, got {max_rounds}")
    if clock == "events" and device.type != "cuda":
        raise UserError(f"clock='events' needs a CUDA device, got device={device}; use clock='wall'")
    events = device.type == "cuda" and clock != "wall"
    names = list(candidates)
    with cpu_threads(threads) as used_threads:
        flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device) if events else None
        for name in names:
            for _ in range(warmup):
                candidates[name]()
        peaks = {name: peak_bytes(candidates[name], device) if memory else None for name in names}
        calls = {name: calls_per_sample(candidates[name], device) if device.type == "cpu" else 1 for name in names}

        def sample(name: str) -> float:
            if flush is not None:
                return event_seconds(candidates[name], flush)
            return wall_seconds(candidates[name], calls[name], device)

        samples: dict[str, list[float]] = {name: [] for name in names}
        with no_garbage_collection():
            turns = [names] if order == "interleaved" else [[name] for name in names]
            for turn in turns:
                start = time.perf_counter()
                for number in range(max_rounds):
                    if number >= min_rounds and time.perf_counter() - start >= min_seconds:
                        break
                    for name in turn if number % 2 == 0 else reversed(turn):
                        samples[name].append(sample(name))
    rounds = min(map(len, samples.values()))
    timings = {
        name: Timing(*Quantiles.of(s), len(s), peaks[name], calls[name], tuple(s[:rounds]))
        for name, s in samples.items()
    }
    return Comparison(timings, str(device), used_threads, order, "events" if events else "wall")


@dataclass(frozen=True)
class MachineFloor:
    """What the machine can do at best, measured: the limit beside every timing.

    Args:
        flops_per_second: Fastest square matrix product seen; two operations per multiply-add.
        bytes_per_second: Fastest copy seen, bytes read plus bytes written.
        device: Where.
        dtype: Of the matrix product.
        threads: CPU threads.
    """

    flops_per_second: float
    bytes_per_second: float
    device: str
    dtype: str
    threads: int

    def seconds(self, macs: int = 0, moved_bytes: int = 0) -> float:
        """Least time for so many multiply-adds and so many bytes moved, if the two overlap perfectly."""
        return max(2 * macs / self.flops_per_second, moved_bytes / self.bytes_per_second)


def machine_floor(
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    threads: int | None = None,
    min_seconds: float = 0.5,
    matrix_size: int | None = None,
    copy_bytes: int | None = None,
) -> MachineFloor:
    """Measure the rate of a large matrix product and of a large copy.

    Args:
        device: Where.
        dtype: Of the matrix product.
        threads: CPU threads; as they are if `None`.
        min_seconds: Time for the two together, at least.
        matrix_size: Side of the matrices; 1,024 on a CPU and 8,192 on a GPU if not given.
        copy_bytes: Size of the copied buffer, larger than the caches; 256 MiB on a CPU and 1 GiB on a GPU if not given.

    Returns:
        The best rates seen.
    """
    device = resolve_device(device)
    size = matrix_size or (1024 if device.type == "cpu" else 8192)
    length = copy_bytes or (2**28 if device.type == "cpu" else 2**30)
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    product = torch.empty_like(left)
    source, target = torch.ones(2, length // 4, device=device)
    comparison = compare(
        {"gemm": lambda: torch.mm(left, right, out=product), "copy": lambda: target.copy_(source)},
        device=device,
        min_rounds=5,
        min_seconds=min_seconds,
        threads=threads,
        memory=False,
    )
    fastest = {name: min(t.samples) for name, t in comparison.timings.items()}
    return MachineFloor(
        flops_per_second=2 * size**3 / fastest["gemm"],
        bytes_per_second=2 * source.numel() * 4 / fastest["copy"],
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        threads=comparison.threads,
    )
