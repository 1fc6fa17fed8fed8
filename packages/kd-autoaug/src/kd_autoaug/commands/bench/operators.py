"""``kd-autoaug bench ops``: every operator by every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effkit.device import resolve_device
from effkit.errors import choose
from effkit.report import Report, Table
from effkit.results import append_csv
from effkit.timing import compare
from kd_autoaug.commands.bench.shared import OURS, photographs
from kd_autoaug.ops.dispatch import apply
from kd_autoaug.ops.layers import Layer
from kd_autoaug.ops.operators import BICUBIC, BILINEAR, NEAREST, Kind, Op, kind_of, operator

__all__ = ["operators_report"]

_ARGUMENTS: Mapping[Op, float] = {Op.ROTATE: 20.0, Op.POSTERIZE: 4.0, Op.SOLARIZE: 128.0, Op.SOLARIZE_ADD: 60.0}


def operators_report(
    *,
    operators: Sequence[str] | None = None,
    size: int,
    batch_size: int,
    providers: Sequence[str] | None,
    device: str,
    threads: int | None,
    min_rounds: int,
    min_seconds: float,
    csv: str | Path | None,
    seed: int,
) -> Report:
    """Time every operator by every backend, in microseconds per picture.

    Args:
        operators: Names; all if ``None``.
        size: Side of the pictures.
        batch_size: Pictures per call.
        providers: Backends; torch and pil on a CPU, torch and triton on a GPU if ``None``.
        device: Where.
        threads: CPU threads.
        min_rounds: Rounds at least.
        min_seconds: Seconds at least, all operators together.
        csv: File to append the rows to.
        seed: Not used: the arguments are fixed.
    """
    where = resolve_device(device)
    names = list(providers or (["torch", "pil"] if where.type == "cpu" else ["torch", "triton"]))
    for name in names:
        choose("bench.providers", name, [n for n in OURS if n != "ours"])
    images = photographs(batch_size, size).to(where)
    cases = [
        (op, how)
        for op in ([operator(name) for name in operators] if operators else Op)
        if op != Op.IDENTITY
        for how in ((NEAREST, BILINEAR, BICUBIC) if kind_of(op) == Kind.AFFINE else (NEAREST,))
    ]
    rows, lines = [], []
    for op, how in cases:
        layer = Layer.uniform(op, batch_size, _ARGUMENTS.get(op, 0.3), how).to(where)
        layer.box[:] = torch.tensor([size // 4, size // 4, size // 2, size // 2], device=where)
        calls = {name: _operator(images, layer, name) for name in names}
        seconds = min_seconds / len(cases)
        result = compare(calls, device=where, threads=threads, min_rounds=min_rounds, min_seconds=seconds, memory=False)
        label = op.name.lower() + {NEAREST: "", BILINEAR: " bilinear", BICUBIC: " bicubic"}[how]
        lines.append([label, *(round(1e6 * result.timings[n].median / batch_size, 2) for n in names)])
        rows += result.rows(
            package="kd-autoaug", case="ops", mode=f"{label} {size}x{size}", dtype="uint8", x=batch_size
        )
    table = Table(f"Microseconds per picture, {size}x{size}, batches of {batch_size}", ["operator", *names], lines)
    files = [append_csv(csv, rows)] if csv else []
    data: dict[str, Any] = {str(line[0]): dict(zip(names, line[1:], strict=True)) for line in lines}
    return Report("kd-autoaug bench ops", [table], data=data, files=files)


def _operator(images: Tensor, layer: Layer, backend: str) -> Callable[[], Tensor]:
    return lambda: apply(images, [layer], fill=128, backend=backend)
