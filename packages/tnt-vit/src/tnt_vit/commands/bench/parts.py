"""``tnt-vit bench mode=parts``: which part of ours takes which share of a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from effkit.bench import Bench
from effkit.errors import UserError
from effkit.report import Report, Table
from effkit.results import ResultRow, append_csv, stamp
from effkit.timing.clock import cpu_threads
from tnt_vit.checkpoints.zoo import VARIANTS
from tnt_vit.commands.bench.clock import seconds_by_part
from tnt_vit.commands.bench.providers import ORDERS, build_provider

__all__ = ["parts_report"]


def parts_report(
    bench: Bench, variant: str, names: Sequence[str], batches: Sequence[int], seed: int, csv: str | Path | None
) -> Report:
    """Shares of a forward pass by part, a table a batch size.

    Args:
        bench: Device, precision, threads, rounds and seconds.
        variant: Which TNT.
        names: The provider; one of ours.
        batches: Pictures a call.
        seed: Of weights and pictures.
        csv: File to append the rows to.

    Raises:
        UserError: If there is not exactly one provider of ours, or the device is no CPU.
    """
    if len(names) != 1 or names[0] not in ORDERS:
        raise UserError(f"mode=parts takes one of ours apart; use providers=[NAME] with one of {', '.join(ORDERS)}")
    if bench.device.type != "cpu":
        raise UserError(f"mode=parts clocks the operators of a CPU, got device={bench.device}; use device=cpu")
    model: Any = build_provider(names[0], variant, bench.device, bench.dtype, seed)
    side = VARIANTS[variant].args.get("img_size", 224)
    tables, rows, data = [], [], {}
    for batch in batches:
        x = torch.randn(batch, 3, side, side).to(bench.dtype)
        with cpu_threads(bench.threads) as threads:
            found = seconds_by_part(model, x, rounds=bench.min_rounds, seconds=bench.min_seconds)
        whole = sum(found.values())
        what = f"{bench.precision} batch {batch}"
        where: Any = stamp()
        lines = [[part, 1e3 * seconds, 100 * seconds / whole] for part, seconds in found.items()]
        note = f"{where['machine']}, {threads} thread(s); medians, together {1e3 * whole:.1f} ms."
        tables.append(Table(f"{variant}, {what}, {names[0]} by part", ["part", "ms", "%"], lines, note))
        for part, seconds in found.items():
            figures = ((what, "ms", 1e3 * seconds), (f"{what} share", "share", seconds / whole))
            rows += [
                ResultRow(
                    "tnt-vit", variant, part, f"{names[0]} by part", bench.precision, "batch", batch,
                    metric, unit, value, threads=threads, **where,
                )
                for metric, unit, value in figures
            ]  # fmt: skip
        data[f"batch_{batch}"] = found
    return Report(f"tnt-vit bench {variant}", tables, data=data, files=[append_csv(csv, rows)] if csv else [])
