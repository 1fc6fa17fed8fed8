"""``bench calibrate``: the closed form of one layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from effkit.report import Report
from effkit.results import append_csv
from effkit.timing import compare
from esa_attention.calibration.closed_form import closed_form
from esa_attention.calibration.moments import StreamingMoments
from esa_attention.commands.bench.shape import LayerShape

__all__ = ["closed_form_report"]


def closed_form_report(shape: LayerShape, rank: int, timing: dict[str, Any], csv: str | Path | None) -> Report:
    """Time the closed form of one layer from given moments.

    Args:
        shape: Heads of the layer.
        rank: Compressed dimension.
        timing: Options of :func:`effkit.timing.compare`; the device is the CPU in any case.
        csv: File to append the row to.
    """
    generator = torch.Generator().manual_seed(0)
    count, width = 2 * shape.key_dim, shape.key_dim
    mix = torch.randn(2, width, width, generator=generator, dtype=torch.float64) / width**0.5
    decay = torch.linspace(0, -4, width, dtype=torch.float64).exp()
    moments = StreamingMoments(width)
    samples = [torch.randn(count, width, generator=generator, dtype=torch.float64) * decay @ m for m in mix]
    moments.update(samples[0], samples[1])
    result = compare(
        {"closed_form": lambda: closed_form(moments, rank, num_kv_heads=shape.num_kv_heads)},
        memory=False,
        **{**timing, "device": "cpu"},
    )
    case = f"d_G {width}, rank {rank}"
    table = result.table(title=f"closed form of one layer, {case}, fp64")
    table.columns.pop(5)
    for line in table.rows:
        line.pop(5)
    seconds = result.timings["closed_form"].median
    rows = result.rows(
        package="esa-attention", case=case, mode="calibrate", dtype="fp64", x_name="key_dim", x=shape.key_dim
    )
    files = [append_csv(csv, rows)] if csv else []
    table.note = "Two Cholesky factors and one singular value decomposition of that size; no forward pass."
    return Report("esa-attention bench calibrate", [table], data={"seconds": seconds}, files=files)
