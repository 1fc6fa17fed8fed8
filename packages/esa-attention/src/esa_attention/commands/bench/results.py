"""From the times of one length to a table, figures and rows, floors included."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from effkit.report import Report
from effkit.results import ResultRow
from effkit.timing import MachineFloor
from esa_attention.commands.bench.case import Case
from esa_attention.commands.bench.floors import macs, moved_bytes

__all__ = ["NAMES", "add_results"]

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def add_results(
    result: Any, case: Case, kind: str, baseline: str | None, floor: MachineFloor, report: Report
) -> list[ResultRow]:
    """Put what was timed at one length into the report, with its floors beside it.

    Args:
        result: Of :func:`effkit.timing.compare`.
        case: What was timed.
        kind: Which step.
        baseline: The provider that ratios are taken against; without one there are no floors either.
        floor: The machine's rates.
        report: Gets a table and, under ``length_N``, the figures.

    Returns:
        Rows for the results file.
    """
    shape = case.shape
    name = f"{shape.num_heads}/{shape.num_kv_heads}/{shape.head_dim}, rank {case.compressor.rank}"
    dtype = NAMES[case.dtype]
    rows = result.rows(
        package="esa-attention", case=name, mode=kind, dtype=dtype, x_name="length", x=case.length, baseline=baseline
    )
    table = result.table(baseline, title=f"{kind} at {case.length:,} tokens, heads {name}, {dtype}")
    found: dict[str, Any] = {"seconds": {n: t.median for n, t in result.timings.items()}}
    if baseline is not None:
        bytes_of = {n: moved_bytes(case, n) for n in result.timings}
        limit = {n: floor.seconds(macs(case, n), bytes_of[n]) for n in result.timings}
        for line, n in zip(table.rows, result.timings, strict=True):
            line[5:6] = [1e3 * limit[n], limit[baseline] / limit[n]]
        table.columns[5:6] = ["floor ms", "bound on the ratio"]
        table.note = (
            table.note.split(" Peak:")[0].rstrip(".")
            + f". Floor: bytes read at {floor.bytes_per_second / 1e9:.1f} GB/s (large copy) or "
            f"multiply-adds at {floor.flops_per_second / 1e9:,.0f} GFLOP/s (large matrix product), whichever takes "
            "longer."
        )
        found["ratio"] = {n: result.ratio(baseline, n).median for n in result.timings}
        found["floor_seconds"] = limit
        found["bytes"] = bytes_of
        found["bound"] = {n: limit[baseline] / limit[n] for n in result.timings}
        template = rows[0]
        rows += [
            dataclasses.replace(
                template,
                provider=f"floor_{n}",
                metric="time",
                unit="s",
                median=seconds,
                p20=None,
                p80=None,
                note="bytes or multiply-adds at the machine's measured rates",
            )
            for n, seconds in limit.items()
        ]
    report.tables.append(table)
    report.data[f"length_{case.length}"] = found
    return rows
