"""Measured figures as rows of one CSV schema, each with machine, versions, commit and date.

The first columns, up to `date`, are the schema every results file of the house shares; `machine`, `threads`, `rounds`
and `note` follow. `gpu` stays empty for a figure measured on a CPU, whose model name is in `machine`.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from effkit.errors import UserError
from effkit.provenance import commit_hash, cpu_name, driver_version, now, package_version
from effkit.report import write_text

__all__ = ["ResultRow", "append_csv", "read_csv", "stamp"]


@dataclass(frozen=True)
class ResultRow:
    """One measured figure.

    Args:
        package: Distribution that measured, e.g. "tnt-vit".
        case: What was run, e.g. "tnt_s_patch16_224".
        provider: Whose implementation, e.g. "ours", "timm".
        mode: "forward", "backward" or "train", "eager" or "compile": whatever tells two runs of a case apart.
        dtype: "fp32", "bf16", "fp16", "fp64".
        x_name: Name of the varied quantity, e.g. "batch".
        x: Its value.
        metric: "time", "peak_memory", "throughput", "time_ratio" ...
        unit: "s", "bytes", "1/s", "x" ...
        median: Median over rounds.
        p20: 20 % quantile; `None` where there is one measurement only.
        p80: 80 % quantile.
        gpu: Name of the GPU, "" on a CPU.
        driver: NVIDIA driver, "" on a CPU.
        torch: Version.
        triton: Version, "" if not installed.
        commit: Short hash with "-dirty" where files differed, "" if unknown.
        date: ISO 8601, UTC.
        machine: Model name of the CPU or GPU that ran.
        threads: CPU threads used by torch.
        rounds: Number of measurements.
        note: Anything a reader must know.
    """

    package: str
    case: str
    provider: str
    mode: str
    dtype: str
    x_name: str
    x: float
    metric: str
    unit: str
    median: float
    p20: float | None = None
    p80: float | None = None
    gpu: str = ""
    driver: str = ""
    torch: str = ""
    triton: str = ""
    commit: str = ""
    date: str = ""
    machine: str = ""
    threads: int = 0
    rounds: int = 0
    note: str = ""


COLUMNS = tuple(f.name for f in dataclasses.fields(ResultRow))
_FLOATS = ("x", "median", "p20", "p80")
_INTS = ("threads", "rounds")


def stamp(device: str | object = "cpu") -> dict[str, str]:
    """The fields of a row that say where and when: gpu, driver, torch, triton, commit, date, machine.

    Args:
        device: The device measured on.

    Returns:
        Keyword arguments for `ResultRow`.
    """
    import torch

    device = torch.device(str(device))
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return {
        "gpu": gpu,
        "driver": driver_version() if gpu else "",
        "torch": torch.__version__,
        "triton": package_version("triton"),
        "commit": commit_hash(),
        "date": now(),
        "machine": gpu or cpu_name(),
    }


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def read_csv(path: str | os.PathLike[str]) -> list[ResultRow]:
    """Read a results file.

    Args:
        path: The file.

    Returns:
        Its rows.

    Raises:
        UserError: If the columns are not those of the schema, or a number cannot be read.
    """
    with open(path, newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    if not lines or tuple(lines[0]) != COLUMNS:
        got = ",".join(lines[0]) if lines else "an empty file"
        raise UserError(f"{path}: columns must be {','.join(COLUMNS)}, got {got}")
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(COLUMNS):
            raise UserError(f"{path}: line {number} has {len(cells)} cells, expected {len(COLUMNS)}")
        fields: dict = dict(zip(COLUMNS, cells, strict=True))
        for name in (*_FLOATS, *_INTS):
            text = fields[name]
            try:
                if name in _INTS:
                    fields[name] = int(text)
                else:
                    fields[name] = None if text == "" and name in ("p20", "p80") else float(text)
            except ValueError:
                raise UserError(f"{path}: line {number}: {name}={text!r} is not a number") from None
        rows.append(ResultRow(**fields))
    return rows


def append_csv(path: str | os.PathLike[str], rows: Sequence[ResultRow]) -> Path:
    """Add rows to a results file, which is made if absent and never seen half written.

    Args:
        path: The file.
        rows: What to add; figures are written with six significant digits.

    Returns:
        The path.

    Raises:
        UserError: If the file exists with other columns.
    """
    path = Path(path)
    text = io.StringIO()
    if path.exists():
        read_csv(path)  # refuses to mix schemas
        text.write(path.read_text(encoding="utf-8"))
        if not text.getvalue().endswith("\n"):
            text.write("\n")
    else:
        text.write(",".join(COLUMNS) + "\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_cell(getattr(row, name)) for name in COLUMNS] for row in rows)
    return write_text(path, text.getvalue())
