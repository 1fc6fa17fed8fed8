"""``bench calibrate``: the closed form of one layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from effkit.bench import Bench
from effkit.report import Report
from esa_attention.calibration.closed_form import closed_form
from esa_attention.calibration.moments import StreamingMoments
from esa_attention.commands.bench.shape import LayerShape

__all__ = ["closed_form_report"]


def closed_form_report(shape: LayerShape, rank: int, csv: str | Path | None, *, seed: int = 0, **timing: Any) -> Report:
    """Time the closed form of one layer from given moments.

    Args:
        shape: Heads of the layer.
        rank: Compressed dimension.
        csv: File to append the row to.
        seed: Of the moments.
        **timing: Options of :class:`effkit.bench.Bench`; the device is the CPU in any case.
    """
    generator = torch.Generator().manual_seed(seed)
    count, width = 2 * shape.key_dim, shape.key_dim
    mix = torch.randn(2, width, width, generator=generator, dtype=torch.float64) / width**0.5
    decay = torch.linspace(0, -4, width, dtype=torch.float64).exp()
    moments = StreamingMoments(width)
    samples = [torch.randn(count, width, generator=generator, dtype=torch.float64) * decay @ m for m in mix]
    moments.update(samples[0], samples[1])
    case = f"d_G {width}, rank {rank}"
    bench = Bench("esa-attention", device="cpu", x_name="key_dim", **timing)
    measured = bench.run(
        {"closed_form": lambda: closed_form(moments, rank, num_kv_heads=shape.num_kv_heads)},
        case=case,
        mode="calibrate",
        x=shape.key_dim,
        title=f"closed form of one layer, {case}, fp64",
        dtype="fp64",
    )
    table = measured.table
    place = table.columns.index("peak MiB")
    for line in (table.columns, *table.rows):
        line.pop(place)
    table.note = "Two Cholesky factors and one singular value decomposition of that size; no forward pass."
    return bench.report("esa-attention bench calibrate", {"seconds": measured.seconds["closed_form"]}, csv=csv)
