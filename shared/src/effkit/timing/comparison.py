"""What a comparison found: medians with 20 and 80 % quantiles, paired ratios, as a table and as results rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from effkit.errors import choose
from effkit.report import Table
from effkit.results import ResultRow, stamp
from effkit.timing.memory import MEMORY_MEANING

__all__ = ["Comparison", "Quantiles", "Timing"]


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
