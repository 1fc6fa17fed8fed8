"""``kd-autoaug bench ops``: every operator by every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effkit.arguments import renamed
from effkit.bench import Bench, check_providers
from effkit.errors import UserError
from effkit.report import Report, Table
from kd_autoaug.commands.bench.shared import OURS, photographs
from kd_autoaug.ops.dispatch import apply
from kd_autoaug.ops.layers import Layer
from kd_autoaug.ops.operators import BICUBIC, BILINEAR, NEAREST, Kind, Op, kind_of, operator
from kd_autoaug.plots.operators import plot_operator_times

__all__ = ["operators_report"]

_ARGUMENTS: Mapping[Op, float] = {Op.ROTATE: 20.0, Op.POSTERIZE: 4.0, Op.SOLARIZE: 128.0, Op.SOLARIZE_ADD: 60.0}


def operators_report(
    bench: Bench,
    *,
    operators: Sequence[str] | None = None,
    size: int,
    batch_size: int,
    providers: Sequence[str] | None,
    csv: str | Path | None,
    folder: Path | None = None,
) -> Report:
    """Time every operator by every backend, in microseconds per picture; the arguments are fixed.

    Args:
        bench: Where; its least time is for all operators together.
        operators: Names; all if ``None``.
        size: Side of the pictures.
        batch_size: Pictures per call.
        providers: Backends; torch and pil on a CPU, torch and triton on a GPU if ``None``.
        csv: File to append the rows to.
        folder: Gets a picture.
    """
    where = bench.device
    usual = ["torch", "pil"] if where.type == "cpu" else ["torch", "triton"]
    names = check_providers(providers or usual, [n for n in OURS if n != "ours"])
    images = photographs(batch_size, size).to(where)
    if operators is not None and not operators:
        raise UserError("operators is an empty list: name some, or leave operators= out for all")
    with renamed({"operator": "operators"}):
        chosen = list(Op) if operators is None else [operator(name) for name in operators]
    cases = [
        (op, how)
        for op in chosen
        if op != Op.IDENTITY
        for how in ((NEAREST, BILINEAR, BICUBIC) if kind_of(op) == Kind.AFFINE else (NEAREST,))
    ]
    lines: list[list[Any]] = []
    for op, how in cases:
        layer = Layer.uniform(op, batch_size, _ARGUMENTS.get(op, 0.3), how).to(where)
        layer.box[:] = torch.tensor([size // 4, size // 4, size // 2, size // 2], device=where)
        calls = {name: _operator(images, layer, name) for name in names}
        label = op.name.lower() + {NEAREST: "", BILINEAR: " bilinear", BICUBIC: " bicubic"}[how]
        mode = f"{label} {size}x{size}"
        found = bench.run(calls, case="ops", mode=mode, x=batch_size, title=label, dtype="uint8", share=1 / len(cases))
        lines.append([label, *(round(1e6 * found.seconds[n] / batch_size, 2) for n in names)])
    data = {line[0]: dict(zip(names, line[1:], strict=True)) for line in lines}
    report = bench.report("kd-autoaug bench ops", data, csv=csv)
    title = f"Microseconds per picture, {size}x{size}, batches of {batch_size}"
    if folder is not None:  # all operators in one plot: the common picture has a panel for each
        report.files.append(plot_operator_times(data, folder / "bench.png", title=title))
    report.tables = [Table(title, ["operator", *names], lines)]
    return report


def _operator(images: Tensor, layer: Layer, backend: str) -> Callable[[], Tensor]:
    return lambda: apply(images, [layer], fill=128, backend=backend)
