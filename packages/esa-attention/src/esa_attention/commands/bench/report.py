"""One report: every length timed, the rows appended to a file, pictures drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effkit.device import resolve_device, resolve_precision
from effkit.errors import UserError, choose
from effkit.progress import report_progress
from effkit.report import Report
from effkit.results import ResultRow, append_csv
from effkit.timing import compare, machine_floor
from esa_attention.commands.bench.case import PROVIDERS, Case, need_flash_attn
from esa_attention.commands.bench.closed_form import closed_form_report
from esa_attention.commands.bench.results import NAMES, add_results
from esa_attention.commands.bench.shape import LayerShape
from esa_attention.config import ESAConfig
from esa_attention.plots import bytes_curves, time_curves

__all__ = ["KINDS", "bench_report"]

KINDS = ("decode", "prefill", "append", "calibrate")


def bench_report(
    kind: str = "decode",
    *,
    lengths: Sequence[int] = (32768, 65536, 131072, 262144),
    providers: Sequence[str] = ("esa", "esa_int8", "sdpa"),
    shape: LayerShape | None = None,
    config: ESAConfig | None = None,
    rank: int = 128,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    min_rounds: int = 10,
    min_seconds: float = 5.0,
    csv: str | Path | None = None,
    folder: Path | None = None,
) -> Report:
    """Time one layer at several lengths.

    Args:
        kind: ``decode`` (one token), ``prefill`` (one chunk), ``append`` (one token, cache only), ``calibrate`` (the
            closed form from given moments; ``lengths`` is not used).
        lengths: Tokens in the cache before the step.
        providers: Of ``PROVIDERS`` in :mod:`~esa_attention.commands.bench.case`; ratios against ``sdpa``, or the last.
        shape: Heads of the layer.
        config: ESA's sizes; the paper's if not given.
        rank: Compressed dimension.
        device: Where.
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16``: type of queries, keys and values.
        threads: CPU threads.
        min_rounds: Rounds at least.
        min_seconds: Seconds a length at least.
        csv: File to append the rows to.
        folder: Gets pictures of time and bytes against length.

    Returns:
        A table a length; ``data`` holds seconds, ratios, floors and bounds.

    Raises:
        UserError: If an argument is unknown or out of range.
    """
    choose("bench", kind, KINDS)
    names = [choose("providers", p, PROVIDERS) for p in providers]
    if not names or not lengths:
        raise UserError(f"providers and lengths must not be empty, got {list(providers)} and {list(lengths)}")
    for length in lengths:
        if isinstance(length, bool) or not isinstance(length, int) or length < 1:
            raise UserError(f"lengths must be whole numbers of at least 1, got {length!r}")
    shape, config = shape or LayerShape(), config or ESAConfig()
    if not 1 <= rank <= shape.key_dim:
        raise UserError(f"rank must be in 1..{shape.key_dim}, got {rank}")
    if "flash_attn" in names:
        need_flash_attn()
    where = resolve_device(device)
    dtype = resolve_precision(precision, where)
    timing: dict[str, Any] = {"device": where, "min_rounds": min_rounds, "min_seconds": min_seconds, "threads": threads}
    if kind == "calibrate":
        return closed_form_report(shape, rank, timing, csv)
    floor = machine_floor(where, dtype, threads=threads)
    report = Report(f"esa-attention bench {kind}")
    rows: list[ResultRow] = []
    for number, length in enumerate(lengths):
        report_progress(f"{kind} at {length:,} tokens", number / len(lengths))
        case = Case(shape, config, rank, length, config.chunk_size if kind == "prefill" else 1, where, dtype)
        if kind == "append":
            calls = {"esa": case.append()}
        else:
            calls = {p: (case.esa if p.startswith("esa") else case.full)(p) for p in names}
        baseline = None if kind == "append" else "sdpa" if "sdpa" in calls else names[-1]
        result = compare(calls, memory=False, **timing)
        rows += add_results(result, case, kind, baseline, floor, report)
        del calls, case
    if kind == "append":
        _append_growth(report, lengths)
    report.files = [append_csv(csv, rows)] if csv else []
    if folder is not None and kind != "append" and len(lengths) > 1:
        report.files += _draw(
            report,
            kind,
            sorted(lengths),
            f"heads {shape.num_heads}/{shape.num_kv_heads}/{shape.head_dim}, {NAMES[dtype]}, {where}",
            folder,
        )
    return report


def _draw(report: Report, kind: str, lengths: list[int], remark: str, folder: Path) -> list[Path]:
    found = [report.data[f"length_{n}"] for n in lengths]
    names = list(found[0]["seconds"])
    baseline = "sdpa" if "sdpa" in names else names[-1]

    def of(key: str) -> dict[str, list[float]]:
        return {n: [f[key][n] for f in found] for n in names}

    step = "a decoding step" if kind == "decode" else "reading a chunk"
    common: dict[str, Any] = {"baseline": baseline, "remark": remark}
    return [
        time_curves(
            lengths,
            of("seconds"),
            folder / "time.png",
            bounds=of("floor_seconds"),
            title=f"Time of {step}, one layer",
            **common,
        ),
        bytes_curves(lengths, of("bytes"), folder / "bytes.png", title=f"Bytes read by {step}, one layer", **common),
    ]


def _append_growth(report: Report, lengths: Sequence[int]) -> None:
    times = {n: report.data[f"length_{n}"]["seconds"]["esa"] for n in lengths}
    report.data["growth"] = times[max(lengths)] / times[min(lengths)]
    report.lines.append(
        f"appending at {max(lengths):,} tokens takes {report.data['growth']:.2f} times what it takes at "
        f"{min(lengths):,}"
    )
