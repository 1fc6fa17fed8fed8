"""One attention layer timed: ESA's whole step against full attention, in one interleaved run, with the bound beside it.

What bounds a decoding step is the bytes it must read. The floor of each row is those bytes at the rate of this
machine's large copy; the bound on the ratio is the ratio of the bytes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effkit.device import resolve_device, resolve_precision
from effkit.errors import UserError, choose
from effkit.progress import report_progress
from effkit.report import Report
from effkit.results import ResultRow, append_csv
from effkit.timing import MachineFloor, compare, machine_floor
from esa_attention.attention.cache.layer import ESALayer, Workspace
from esa_attention.attention.engine.step import attend_layer
from esa_attention.attention.rope import RopeTables
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig

__all__ = ["KINDS", "PROVIDERS", "LayerShape", "bench_report"]

KINDS = ("decode", "prefill", "append", "calibrate")
PROVIDERS = ("esa", "esa_int8", "esa_exact", "sdpa", "flash_attn")
_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
_FILL = 8192  # tokens appended at once while a cache is filled


@dataclass(frozen=True)
class LayerShape:
    """Heads of the layer that is timed; the defaults are Llama-3-8B's."""

    num_heads: int = 32
    num_kv_heads: int = 8
    head_dim: int = 128

    def __post_init__(self) -> None:
        if min(dataclasses.astuple(self)) < 1 or self.num_heads % self.num_kv_heads:
            raise UserError(
                f"heads must be positive and num_kv_heads divide num_heads, got {dataclasses.astuple(self)}"
            )

    @property
    def key_dim(self) -> int:
        """Numbers in the keys of a token (d_G)."""
        return self.num_kv_heads * self.head_dim


class _Case:
    """Tensors and callables of one length; providers are made when asked for and dropped with the case."""

    def __init__(
        self,
        shape: LayerShape,
        config: ESAConfig,
        rank: int,
        length: int,
        new: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.shape, self.config, self.length, self.new = shape, config, length, new
        self.device, self.dtype = device, dtype
        self._generator = torch.Generator(device).manual_seed(0)
        weights = self._randn(2, rank, shape.key_dim, dtype=torch.float32) / math.sqrt(shape.key_dim)
        self.compressor = QKCompressor(shape.num_kv_heads, shape.head_dim, weights[0], weights[1])
        self.tables = RopeTables.standard(shape.head_dim, 5e5)
        self.query = self._randn(1, shape.num_heads, new, shape.head_dim)
        self.keys, self.values = (self._randn(1, shape.num_kv_heads, new, shape.head_dim) for _ in range(2))
        self.workspace = Workspace()

    def _randn(self, *size: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(*size, generator=self._generator, device=self.device, dtype=dtype or self.dtype)

    def layer(self, provider: str) -> ESALayer:
        """A cache layer that holds ``length`` tokens."""
        config = self.config.replace(index_dtype="int8") if provider == "esa_int8" else self.config
        exact = QKCompressor.exact(self.shape.num_kv_heads, self.shape.head_dim)
        compressor = exact if provider == "esa_exact" else self.compressor
        # Room for every token that the timing will append: growing by doubling is amortised, not part of a step.
        layer = ESALayer(config, compressor, self.tables, self.length + 4096 * self.new, self.workspace)
        size = (1, self.shape.num_kv_heads, _FILL, self.shape.head_dim)
        self._generator.manual_seed(1)
        for low in range(0, self.length, _FILL):
            count = min(_FILL, self.length - low)
            keys, values = self._randn(*size)[:, :, :count], self._randn(*size)[:, :, :count]
            layer.update(keys, values)
        return layer

    def esa(self, provider: str) -> Callable[[], Any]:
        """The whole step: append, score, select, gather, attend."""
        layer, scaling = self.layer(provider), self.shape.head_dim**-0.5

        def step() -> Tensor:
            with torch.inference_mode():
                layer.update(self.keys, self.values)
                out = attend_layer(layer, self.query, scaling)
                if self.new > 1:  # a chunk would make the sequence much longer
                    layer.crop(-self.new)
                return out

        return step

    def full(self, provider: str) -> Callable[[], Any]:
        """Full attention over as many keys, contiguous by head, the queries of a group packed as transformers does."""
        shape = self.shape
        total = self.length + self.new
        size = (1, shape.num_kv_heads, total, shape.head_dim)
        self._generator.manual_seed(1)
        keys, values = self._randn(*size), self._randn(*size)
        if provider == "flash_attn":
            from flash_attn import flash_attn_func

            rows = [t.transpose(1, 2).contiguous() for t in (self.query, keys, values)]
            return lambda: flash_attn_func(*rows, causal=True)
        if self.new == 1:
            packed = self.query.view(1, shape.num_kv_heads, -1, shape.head_dim)
            mask = None
        else:
            packed = self.query
            mask = torch.ones(self.new, total, dtype=torch.bool, device=self.device).tril(self.length)

        def run() -> Tensor:
            with torch.inference_mode():
                return torch.nn.functional.scaled_dot_product_attention(
                    packed, keys, values, attn_mask=mask, enable_gqa=packed.shape[1] != keys.shape[1]
                )

        return run

    def append(self) -> Callable[[], Any]:
        """Appending one token, the index included."""
        layer = self.layer("esa")

        def run() -> None:
            with torch.inference_mode():
                layer.update(self.keys, self.values)
                layer.crop(-self.new)

        return run

    def moved_bytes(self, provider: str) -> int:
        """Bytes a step must read at least."""
        size = torch.finfo(self.dtype).bits // 8
        token = 2 * self.shape.key_dim * size
        if not provider.startswith("esa"):
            return (self.length + self.new) * token
        c = self.config
        middle = max(0, self.length - c.num_local - c.num_initial)
        attended = min(self.length, c.num_local + c.num_initial) + min(middle, c.num_selected) + self.new
        if middle <= c.num_selected:
            return attended * token
        per_key = {
            "esa": self.compressor.rank * size,
            "esa_int8": self.compressor.rank + 4,
            "esa_exact": self.shape.key_dim * size,
        }[provider]
        return middle * per_key + attended * token

    def macs(self, provider: str) -> int:
        """Multiply-adds of scores and attention."""
        seen = self.length + (self.new + 1) // 2
        c = self.config
        middle = max(0, self.length - c.num_local - c.num_initial)
        if provider.startswith("esa"):
            seen = min(seen, c.num_initial + c.num_selected + c.num_local + (self.new + 1) // 2)
        attention = 2 * self.shape.num_heads * self.shape.head_dim * seen * self.new
        if not provider.startswith("esa") or middle <= c.num_selected:
            return attention
        rank = self.shape.key_dim if provider == "esa_exact" else self.compressor.rank
        return attention + rank * middle * self.new


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
        providers: Of :data:`PROVIDERS`; ratios are taken against ``sdpa``, else the last.
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
        _need_flash_attn()
    where = resolve_device(device)
    dtype = resolve_precision(precision, where)
    timing: dict[str, Any] = {"device": where, "min_rounds": min_rounds, "min_seconds": min_seconds, "threads": threads}
    if kind == "calibrate":
        return _calibrate_report(shape, rank, timing, csv)
    floor = machine_floor(where, dtype, threads=threads)
    report = Report(f"esa-attention bench {kind}")
    rows: list[ResultRow] = []
    for number, length in enumerate(lengths):
        report_progress(f"{kind} at {length:,} tokens", number / len(lengths))
        case = _Case(shape, config, rank, length, config.chunk_size if kind == "prefill" else 1, where, dtype)
        if kind == "append":
            calls = {"esa": case.append()}
        else:
            calls = {p: (case.esa if p.startswith("esa") else case.full)(p) for p in names}
        baseline = None if kind == "append" else "sdpa" if "sdpa" in calls else names[-1]
        result = compare(calls, memory=False, **timing)
        rows += _rows(result, case, kind, baseline, floor, report)
        del calls, case
    if kind == "append":
        _append_growth(report, lengths)
    report.files = [append_csv(csv, rows)] if csv else []
    if folder is not None and kind != "append" and len(lengths) > 1:
        report.files += _draw(
            report,
            kind,
            sorted(lengths),
            f"heads {shape.num_heads}/{shape.num_kv_heads}/{shape.head_dim}, {_NAMES[dtype]}, {where}",
            folder,
        )
    return report


def _draw(report: Report, kind: str, lengths: list[int], remark: str, folder: Path) -> list[Path]:
    from esa_attention.plots import bytes_curves, time_curves

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


def _rows(
    result: Any, case: _Case, kind: str, baseline: str | None, floor: MachineFloor, report: Report
) -> list[ResultRow]:
    shape = case.shape
    name = f"{shape.num_heads}/{shape.num_kv_heads}/{shape.head_dim}, rank {case.compressor.rank}"
    dtype = _NAMES[case.dtype]
    rows = result.rows(
        package="esa-attention", case=name, mode=kind, dtype=dtype, x_name="length", x=case.length, baseline=baseline
    )
    table = result.table(baseline, title=f"{kind} at {case.length:,} tokens, heads {name}, {dtype}")
    found: dict[str, Any] = {"seconds": {n: t.median for n, t in result.timings.items()}}
    if baseline is not None:
        bytes_of = {n: case.moved_bytes(n) for n in result.timings}
        limit = {n: floor.seconds(case.macs(n), bytes_of[n]) for n in result.timings}
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


def _append_growth(report: Report, lengths: Sequence[int]) -> None:
    times = {n: report.data[f"length_{n}"]["seconds"]["esa"] for n in lengths}
    report.data["growth"] = times[max(lengths)] / times[min(lengths)]
    report.lines.append(
        f"appending at {max(lengths):,} tokens takes {report.data['growth']:.2f} times what it takes at "
        f"{min(lengths):,}"
    )


def _calibrate_report(shape: LayerShape, rank: int, timing: dict[str, Any], csv: str | Path | None) -> Report:
    from esa_attention.calibration.closed_form import closed_form
    from esa_attention.calibration.moments import StreamingMoments

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


def _need_flash_attn() -> None:
    try:
        from flash_attn import flash_attn_func  # noqa: F401
    except Exception as error:  # a broken build raises anything
        raise UserError(f"providers: flash_attn cannot be loaded ({error}); install the extra 'flash'") from None
