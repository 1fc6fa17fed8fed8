"""Providers by cases: each case is one interleaved run, and all of them are one report."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from effkit.arguments import check_arguments
from effkit.bench.picture import draw_times
from effkit.device import PRECISIONS, resolve_device, resolve_precision
from effkit.errors import UserError
from effkit.report import Report, Table
from effkit.results import ResultRow, append_csv
from effkit.timing import Comparison, MachineFloor, compare, machine_floor

__all__ = ["Bench", "Measured"]


@functools.cache
def _floor(device: torch.device, dtype: torch.dtype, threads: int) -> MachineFloor:
    return machine_floor(device, dtype, threads=threads)


@dataclass
class Measured:
    """One case.

    Attributes:
        title: What was timed.
        x: The varied quantity.
        result: Times of all providers, round by round.
        table: As it will be printed; a caller may add to its note.
        baseline: What the others are compared with.
        limits: Least seconds by provider, or for all of them under the name ``floor``.
    """

    title: str
    x: float
    result: Comparison
    table: Table
    baseline: str | None = None
    limits: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> dict[str, float]:
        """Median time by provider."""
        return {name: t.median for name, t in self.result.timings.items()}

    @property
    def ratios(self) -> dict[str, float]:
        """How many times faster than the baseline the others are; empty without one."""
        return {n: r for n, r in self.faster_than(self.baseline).items() if n != self.baseline} if self.baseline else {}

    def faster_than(self, peer: str) -> dict[str, float]:
        """How many times faster than a peer each provider is, median over rounds."""
        return {name: self.result.ratio(peer, name).median for name in self.result.timings}


class Bench:
    """A benchmark on one device.

    Args:
        package: Distribution that measures.
        device: ``auto``, ``cpu``, ``cuda``...
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16``.
        threads: CPU threads; torch's choice if not given.
        min_rounds: Rounds at least.
        min_seconds: Seconds a case at least, all providers together.
        x_name: What `x` of a case is, e.g. ``batch``.
        memory: Whether to take peak memory.

    Raises:
        UserError: If this machine has no such device or precision.
    """

    def __init__(
        self,
        package: str,
        *,
        device: str | torch.device = "auto",
        precision: str = "fp32",
        threads: int | None = None,
        min_rounds: int = 10,
        min_seconds: float = 10.0,
        x_name: str = "batch",
        memory: bool = True,
    ) -> None:
        given = {"threads": threads, "min_rounds": min_rounds, "min_seconds": min_seconds}
        check_arguments(Bench, given)
        for name, value, least in (("min_rounds", min_rounds, 1), ("min_seconds", min_seconds, 0)):
            if not least <= value < float("inf"):
                raise UserError(f"{name}={value!r} must be at least {least}, and finite")
        self.package, self.x_name, self.memory = package, x_name, memory
        self.device = resolve_device(device)
        self.dtype = resolve_precision(precision, self.device)
        self.threads, self.min_rounds, self.min_seconds = threads, min_rounds, min_seconds
        self.cases: list[Measured] = []
        self.rows: list[ResultRow] = []

    @property
    def precision(self) -> str:
        """Name of the dtype, as results files have it."""
        return next(name for name, dtype in PRECISIONS.items() if dtype == self.dtype)

    @functools.cached_property
    def floor(self) -> MachineFloor:
        """What this machine can do at best; measured at the first use, and once for all jobs of a process."""
        return _floor(self.device, self.dtype, self.threads or torch.get_num_threads())

    def run(
        self,
        calls: Mapping[str, Callable[[], Any]],
        *,
        case: str,
        mode: str,
        x: float,
        title: str = "",
        baseline: str | None = None,
        peers: Sequence[str] = (),
        limits: float | Mapping[str, float] | None = None,
        limit_note: str = "",
        dtype: str = "",
        note: str = "",
        share: float = 1.0,
        warmup: int = 3,
    ) -> Measured:
        """Time the providers of one case against each other.

        Args:
            calls: Provider to function without arguments.
            case: What is run, for the rows.
            mode: What tells two runs of a case apart, for the rows.
            x: The varied quantity.
            title: Of the table; case and mode if empty.
            baseline: Provider that the others are compared with.
            peers: Further providers to give ratios to, as rows ``ratio_to_PEER``.
            limits: Least seconds that the work allows, one for all (a row ``floor``) or by provider (``floor_NAME``).
            limit_note: How they were found.
            dtype: For the rows; the benchmark's precision if empty.
            note: For the rows.
            share: Part of the benchmark's seconds that this case gets.
            warmup: Calls before anything is measured.
        """
        result = compare(
            calls,
            device=self.device,
            threads=self.threads,
            min_rounds=self.min_rounds,
            min_seconds=self.min_seconds * share,
            memory=self.memory,
            warmup=warmup,
        )
        title = title or f"{case} {mode}"
        rows = result.rows(
            package=self.package, case=case, mode=mode, dtype=dtype or self.precision, x_name=self.x_name, x=x,
            baseline=baseline, note=note,
        )  # fmt: skip
        for peer in peers:
            if peer in calls and peer != baseline:
                rows += [_ratio(rows[0], n, peer, result) for n in calls if n not in (*peers, baseline)]
        named = _named(limits)
        rows += [_limit(rows[0], name, seconds, limit_note) for name, seconds in named.items()]
        measured = Measured(title, x, result, result.table(baseline, title=title), baseline, named)
        if isinstance(limits, Mapping):
            _show_limits(measured)
        self.cases.append(measured)
        self.rows += rows
        return measured

    def report(
        self,
        title: str,
        data: Mapping[str, Any] | None = None,
        *,
        csv: str | Path | None = None,
        folder: Path | None = None,
    ) -> Report:
        """Everything that was run.

        Args:
            title: Of the report.
            data: For machines.
            csv: Results file to add the rows to.
            folder: Gets the picture ``bench.png``.
        """
        files = [append_csv(csv, self.rows)] if csv else []
        if folder is not None and self.cases:
            panels = [(m.title, m.result.timings, m.ratios, m.limits) for m in self.cases]
            files.append(draw_times(panels, Path(folder) / "bench.png", title=title))
        return Report(title, [m.table for m in self.cases], data=dict(data or {}), files=files)


def _named(limits: float | Mapping[str, float] | None) -> dict[str, float]:
    if limits is None:
        return {}
    return dict(limits) if isinstance(limits, Mapping) else {"floor": limits}


def _limit(like: ResultRow, name: str, seconds: float, note: str) -> ResultRow:
    provider = name if name == "floor" else f"floor_{name}"
    return dataclasses.replace(
        like, provider=provider, metric="time", unit="s", median=seconds, p20=None, p80=None, note=note
    )


def _ratio(like: ResultRow, provider: str, peer: str, result: Comparison) -> ResultRow:
    median, p20, p80 = result.ratio(peer, provider)
    return dataclasses.replace(
        like, provider=provider, metric=f"ratio_to_{peer}", unit="x", median=median, p20=p20, p80=p80
    )


def _show_limits(measured: Measured) -> None:
    """Put each provider's own floor, and what it allows the ratio to be, where the memory would stand."""
    table, limits = measured.table, measured.limits
    place = table.columns.index("peak MiB")
    columns = ["floor ms"]
    if measured.baseline is not None:
        columns.append("bound on the ratio")
    for line, name in zip(table.rows, measured.result.timings, strict=True):
        line[place : place + 1] = [1e3 * limits[name], limits[measured.baseline or name] / limits[name]][: len(columns)]
    table.columns[place : place + 1] = columns
    table.note = table.note.split(" Peak:")[0]
