"""One report: every length timed, the rows appended to a file, pictures drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effkit.bench import Bench, check_counts, check_providers
from effkit.errors import UserError, choose
from effkit.progress import report_progress
from effkit.report import Report
from esa_attention.attention.crossover import meeting_point
from esa_attention.commands.bench.case import PROVIDERS, Case, need_flash_attn
from esa_attention.commands.bench.closed_form import closed_form_report
from esa_attention.commands.bench.floors import kernel_bytes, macs, moved_bytes
from esa_attention.commands.bench.peers import captured, fastest
from esa_attention.commands.bench.shape import LayerShape
from esa_attention.config import ESAConfig
from esa_attention.ops.forms import measured as measured_forms
from esa_attention.plots import bytes_curves, time_curves

__all__ = ["KINDS", "bench_report"]

KINDS = ("decode", "prefill", "crossover", "append", "calibrate")


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
    seed: int = 0,
) -> Report:
    """Time one layer at several lengths.

    Args:
        kind: ``decode`` (one token), ``prefill`` (one chunk), ``crossover`` (``decode`` at short lengths), ``append``
            (one token, cache only), ``calibrate`` (the closed form from given moments; ``lengths`` is not used).
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
        seed: Of all that is timed.

    Returns:
        A table a length; ``data`` holds seconds, ratios, floors and bounds.

    Raises:
        UserError: If an argument is unknown or out of range.
    """
    choose("bench", kind, KINDS)
    if not providers or not lengths:
        raise UserError(f"providers and lengths must not be empty, got {list(providers)} and {list(lengths)}")
    names = check_providers(providers, PROVIDERS, "providers")
    lengths = check_counts("lengths", lengths)
    shape, config = shape or LayerShape(), config or ESAConfig()
    if not 1 <= rank <= shape.key_dim:
        raise UserError(f"rank must be in 1..{shape.key_dim}, got {rank}")
    if "flash_attn" in names:
        need_flash_attn()
    timing: dict[str, Any] = {
        "threads": threads,
        "min_rounds": min_rounds,
        "min_seconds": min_seconds,
        "memory": False,
    }
    bench = Bench("esa-attention", device=device, precision=precision, x_name="length", **timing)
    if kind == "calibrate":
        if bench.device.type != "cpu" and device != "auto":
            raise UserError(f"device={str(device)!r}: the closed form runs on the CPU, leave device out")
        if precision not in ("auto", "fp32"):
            raise UserError(f"precision={precision!r}: the closed form computes in fp64, leave precision out")
        return closed_form_report(shape, rank, csv, seed=seed, **timing)
    if kind != "append":
        _ = bench.floor  # measured now, before a cache takes memory
    data: dict[str, Any] = {}
    for number, length in enumerate(lengths):
        report_progress(f"{kind} at {length:,} tokens", number / len(lengths))
        new = config.chunk_size if kind == "prefill" else 1
        case = Case(shape, config, rank, length, new, bench.device, bench.dtype, seed)
        data[f"length_{length}"] = _measure(bench, case, "decode" if kind == "crossover" else kind, names)
        del case
    report = bench.report(f"esa-attention bench {kind}", data, csv=csv)
    if kind == "append":
        _append_growth(report, lengths)
        return report
    if kind in ("decode", "crossover"):
        _say_crossover(report, lengths)
    if folder is not None and len(lengths) > 1:
        heads = f"{shape.num_heads}/{shape.num_kv_heads}/{shape.head_dim}"
        report.files += _draw(
            report, kind, sorted(lengths), f"heads {heads}, {bench.precision}, {bench.device}", folder
        )
    return report


def _measure(bench: Bench, case: Case, kind: str, names: Sequence[str]) -> dict[str, Any]:
    """Time one length; with a baseline its floors and bounds stand beside it.

    Returns:
        The figures of this length.
    """
    race: dict[str, float] = {}
    known = measured_forms()
    if kind == "append":
        calls, baseline = {"esa": case.append()}, None
    else:
        calls, race = _calls(bench, case, names)
        baseline = "sdpa" if "sdpa" in calls else names[-1]
    bytes_of = {n: moved_bytes(case, n) for n in calls}
    limits = {n: bench.floor.seconds(macs(case, n), bytes_of[n]) for n in calls} if baseline else None
    shape = case.shape
    name = f"{shape.num_heads}/{shape.num_kv_heads}/{shape.head_dim}, rank {case.compressor.rank}"
    measured = bench.run(
        calls,
        case=name,
        mode=kind,
        x=case.length,
        title=f"{kind} at {case.length:,} tokens, heads {name}, {bench.precision}",
        baseline=baseline,
        limits=limits,
        limit_note="bytes or multiply-adds at the machine's measured rates",
        note=f"sdpa: {min(race, key=race.__getitem__)}" if race else "",
    )
    found: dict[str, Any] = {"seconds": measured.seconds}
    if baseline is None or limits is None:
        return found
    measured.table.note = (
        f"{measured.table.note.rstrip('.')}. Floor: bytes read at {bench.floor.bytes_per_second / 1e9:.1f} GB/s (large "
        f"copy) or multiply-adds at {bench.floor.flops_per_second / 1e9:,.0f} GFLOP/s (large matrix product), "
        "whichever takes longer."
    )
    if race:
        ordered = sorted(race, key=race.__getitem__)
        measured.table.note += (
            f" sdpa is full attention in the fastest form that runs here, {ordered[0]}; the others were tried first: "
            + ", ".join(f"{name} {1e3 * race[name]:.3g} ms" for name in ordered)
            + "."
        )
        found["full_attention"] = race
    if forms := [line for line in measured_forms() if line not in known]:
        found["cpu_forms"] = forms
        measured.table.note += f" Forms by a measurement at first use (esa.cpu_forms): {'; '.join(forms)}."
    if case.new == 1:
        found["kernel_bytes"] = {n: kernel_bytes(case, n) for n in calls if n.startswith("esa")}
        for name, parts in found["kernel_bytes"].items():
            shares = ", ".join(f"{part} {size / 2**20:.3g} MiB" for part, size in parts.items())
            share = 100 * bytes_of[name] / sum(parts.values())
            measured.table.note += f" Kernels of {name} move {shares}; the floor is {share:.0f} % of that."
    bound = {n: limits[baseline] / limits[n] for n in calls}
    ratios = measured.faster_than(baseline)
    return {**found, "ratio": ratios, "floor_seconds": limits, "bytes": bytes_of, "bound": bound}


def _calls(bench: Bench, case: Case, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, float]]:
    """A callable for every provider, and how long the forms of full attention took of which ``sdpa`` is the fastest."""
    calls: dict[str, Any] = {}
    race: dict[str, float] = {}
    for name in names:
        if name.startswith("esa"):
            calls[name] = case.esa(name)
            continue
        forms = case.full()
        if name == "flash_attn":
            calls[name] = captured(forms["flash_attn"], bench.device)
        else:
            _, calls[name], race = fastest(forms, bench.device, bench.threads, min(0.5, bench.min_seconds))
    return calls, race


def _say_crossover(report: Report, lengths: Sequence[int]) -> None:
    """From which length ESA is faster, as far as the lengths that were timed tell."""
    found = {n: report.data[f"length_{n}"]["ratio"] for n in lengths}
    name = next((p for p in found[lengths[0]] if p.startswith("esa")), None)
    if name is None or "sdpa" not in found[lengths[0]]:
        return
    meets = meeting_point((n, found[n][name]) for n in lengths)
    report.data["crossover"] = meets
    low, high = min(lengths), max(lengths)
    if meets is None:
        line = f"{name} is not faster than full attention at {high:,} tokens: dense_until of at least {high} fits here"
    elif meets == low:
        line = f"{name} is faster than full attention at all these lengths: the crossover lies below {low:,} tokens"
    else:
        line = f"crossover: {name} is faster than full attention from {meets:,} tokens on (esa.dense_until={meets})"
    report.lines.append(line)


def _draw(report: Report, kind: str, lengths: list[int], remark: str, folder: Path) -> list[Path]:
    found = [report.data[f"length_{n}"] for n in lengths]
    names = list(found[0]["seconds"])
    baseline = "sdpa" if "sdpa" in names else names[-1]

    def of(key: str) -> dict[str, list[float]]:
        return {n: [f[key][n] for f in found] for n in names}

    step = "reading a chunk" if kind == "prefill" else "a decoding step"
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
