"""Speed of a network's forms end to end, all of them interleaved in one run."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from effkit.bench import Bench, Measured, check_counts, check_csv, check_providers, inference
from effkit.cli import run_dir
from effkit.device import seed_everything
from effkit.errors import UserError, choose
from effkit.report import Report, Table
from shiftghost_sr.commands.parts import plain, size_of
from shiftghost_sr.commands.peers import official_form
from shiftghost_sr.compression.count import count_module
from shiftghost_sr.compression.deploy import deploy
from shiftghost_sr.compression.forms import DIRECTIONS, set_direction, without_numbers
from shiftghost_sr.layers.schedule import shifts
from shiftghost_sr.models.zoo import MODELS, create_model

__all__ = ["PROVIDERS", "bench_report", "build_providers", "run"]

PROVIDERS = {
    "dense": "the dense network",
    "dense_nhwc": "the same, channels last",
    "dense_compile": "the same through torch.compile",
    "dense_nhwc_compile": "the same, channels last and through torch.compile",
    "ghost": "the ghost network as it is trained: slices are copied",
    "official": "the ghost network run the official way: depthwise convolution and concatenation",
    "official_nhwc": "the same, channels last",
    "deployed": "the deployed network",
    "deployed_nhwc": "the same, channels last",
    "deployed_compile": "the same, nothing in place, through torch.compile",
    "deployed_nhwc_compile": "the same, channels last too",
    "deployed_triton": "the deployed network, channels last, its folded convolutions by the Triton kernel",
}
"""What is timed."""

_USUAL = ["dense", "dense_nhwc", "official", "official_nhwc", "deployed", "deployed_nhwc"]


def _ghost(model: str, scale: int, ghost: Any, direction: str, size: Mapping[str, Any], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    made = create_model(model, scale, ghost, **size).eval()
    if direction == "random":
        generator = torch.Generator().manual_seed(seed)
        for _, shift in shifts(made):
            drawn = torch.randint(len(shift.directions), (len(shift.logits),), generator=generator).tolist()
            shift.set_directions([shift.directions[k] for k in drawn])
    else:
        set_direction(made, direction)
    return made


def build_providers(
    names: Sequence[str], model: str, scale: int, ghost: Any = "official", *, direction: str = "axis",
    diagonal: str = "auto", size: Mapping[str, Any] | None = None, seed: int = 0,
) -> dict[str, nn.Module]:  # fmt: skip
    """The networks to be timed, on the CPU in float32.

    Args:
        names: Keys of :data:`PROVIDERS`.
        model: Name of the network.
        scale: Of the network.
        ghost: Kind of ghosts.
        direction: Where the shifts point: ``stay``, ``axis``, ``diagonal``, or ``random``, one drawn a layer.
        diagonal: See :func:`~shiftghost_sr.compression.deploy.deploy`.
        size: Other sizes than the model's own.
        seed: Of weights and directions.

    Raises:
        UserError: If a value is not allowed.
    """
    source = _ghost(model, scale, ghost, direction, size or {}, seed)
    found: dict[str, nn.Module] = {}
    for name in names:
        form, *ways = name.split("_")
        if form == "dense":
            torch.manual_seed(seed)
            made = create_model(model, scale, None, **(size or {})).eval()
        elif form == "official":
            made = official_form(source)
        elif form == "deployed":
            backend = "triton" if "triton" in ways else "torch"
            made = deploy(source, diagonal=diagonal, portable="compile" in ways, backend=backend)
        else:
            made = copy.deepcopy(source)
        found[name] = made.to(memory_format=torch.channels_last) if _channels_last(name) else made  # type: ignore[call-overload]
    return found


def _channels_last(name: str) -> bool:
    return not {"nhwc", "triton"}.isdisjoint(name.split("_"))


def _best(case: Measured, form: str) -> str | None:
    """The fastest provider of a form."""
    names = [n for n in case.seconds if n.partition("_")[0] == form]
    return min(names, key=lambda n: case.seconds[n]) if names else None


def _against(case: Measured, macs: Mapping[str, int]) -> list[list[Any]]:
    """Deployed, at its best, against the best of each other form; with the ratio that multiply-adds would give."""
    deployed = _best(case, "deployed")
    rows: list[list[Any]] = []
    for form in ("dense", "official", "ghost"):
        other = _best(case, form)
        if deployed and other:
            ratio = case.result.ratio(other, deployed)
            rows.append([deployed, other, ratio.median, ratio.p20, ratio.p80, macs[form] / macs["deployed"]])
    return rows


def bench_report(
    model: str = "edsr_baseline", scale: int = 2, ghost: Any = "official", *, direction: str = "axis",
    diagonal: str = "auto", size: Mapping[str, Any] | None = None, frames: Sequence[Sequence[int]] = ((180, 320),),
    batch: int = 1, providers: Sequence[str] | None = None, device: str = "auto", precision: str = "auto",
    threads: int | None = None, warmup: int | None = None, min_rounds: int = 5, min_seconds: float = 10.0,
    seed: int = 0,
    csv: str | Path | None = None, folder: Path | None = None,
) -> Report:  # fmt: skip
    """Time a network's forms against each other.

    Args:
        model: Name of the network.
        scale: Of the network.
        ghost: Kind of ghosts.
        direction: See :func:`build_providers`, as the others.
        diagonal: Likewise.
        size: Likewise.
        frames: Heights and widths of low-resolution pictures; of what a network on the large frame takes, that.
        batch: Pictures a call.
        providers: Keys of :data:`PROVIDERS`; the usual ones if not given.
        device: ``auto``, ``cpu``, ``cuda``...
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16``.
        threads: CPU threads; torch's choice if not given.
        warmup: Calls of each before the first round; 1 if not given, 5 where torch.compile is among them.
        min_rounds: Rounds at least.
        min_seconds: Seconds a frame at least, all providers together.
        seed: Of weights, directions and pictures.
        csv: File to add the rows to.
        folder: Gets the picture ``bench.png``.

    Returns:
        A table a frame, and one of ratios: deployed against each other form, each at its best, with the bound.

    Raises:
        UserError: If a value is not allowed.
    """
    choose("model", model, MODELS)
    choose("direction", direction, (*DIRECTIONS, "random"))
    choose("diagonal", diagonal, ("auto", "box", "taps"))
    names = check_providers(_USUAL if providers is None else providers, PROVIDERS)
    (pictures,) = check_counts("batch", batch)
    if warmup is not None and (isinstance(warmup, bool) or not isinstance(warmup, int) or warmup < 1):
        raise UserError(f"warmup={warmup!r} must be a whole number from 1 on")
    calls_before = (5 if any("compile" in n for n in names) else 1) if warmup is None else warmup
    sides = _frames(frames)
    seed_everything(seed)
    how = {"threads": threads, "min_rounds": min_rounds, "min_seconds": min_seconds}
    bench = Bench("shiftghost-sr", device=device, precision=precision, x_name="lr_pixels", **how)  # type: ignore[arg-type]
    built = build_providers(
        names, model, scale, ghost, direction=direction, diagonal=diagonal, size=size, seed=seed
    )  # fmt: skip
    modules: dict[str, Any] = {n: m.to(device=bench.device, dtype=bench.dtype).eval() for n, m in built.items()}
    channels, larger = int(built[names[0]].channels), scale if getattr(built[names[0]], "grid", "lr") == "lr" else 1  # type: ignore[arg-type]
    data: dict[str, Any] = {}
    ratios = []
    seed_everything(seed)
    for height, width in sides:
        macs = _counted(model, scale, ghost, direction, diagonal, size or {}, seed, (height * larger, width * larger))
        x = torch.rand(pictures, channels, height, width, device=bench.device, dtype=bench.dtype)
        calls = {}
        for name, module in modules.items():
            own = x.contiguous(memory_format=torch.channels_last) if _channels_last(name) else x
            calls[name] = inference(torch.compile(module) if name.endswith("_compile") else module, own)
        limits = {n: bench.floor.seconds(macs=macs[n.partition("_")[0]] * pictures) for n in names}
        label = f"{direction} {diagonal}" + (f" {dict(size)}" if size else "")
        case = bench.run(
            calls, case=f"{model} x{scale}", mode=label, x=height * width,
            title=f"{model} x{scale}, {width} x {height}, batch {pictures}, {bench.precision}, shifts: {label}",
            baseline="dense" if "dense" in names else names[0], peers=["official", "ghost"], limits=limits,
            limit_note="MACs / GEMM rate", warmup=calls_before,
        )  # fmt: skip
        against = _against(case, macs)
        ratios += [[f"{width} x {height}", *row] for row in against]
        data[f"{width}x{height}"] = {
            "seconds": case.seconds, "macs": {n: macs[n.partition("_")[0]] * pictures for n in names},
            "ratios": {row[1]: {"deployed": row[0], "ratio": row[2], "bound": row[5]} for row in against},
        }  # fmt: skip
    report = bench.report("shiftghost-sr bench", data, csv=csv, folder=folder)
    columns = ["frame", "deployed", "against", "ratio", "p20", "p80", "ratio of MACs"]
    report.tables.append(Table("Deployed against the best of each other form", columns, ratios))
    return report


def _frames(frames: Any) -> list[tuple[int, int]]:
    listed = isinstance(frames, list | tuple) and len(frames) > 0
    if not listed or any(not isinstance(frame, list | tuple) or len(frame) != 2 for frame in frames):
        raise UserError(f"frames={frames!r} must be a list of [height, width]")
    return [tuple(check_counts("frames", list(frame))) for frame in frames]  # type: ignore[misc]


def _counted(
    model: str, scale: int, ghost: Any, direction: str, diagonal: str, size: Mapping[str, Any], seed: int,
    hr: tuple[int, int],
) -> dict[str, int]:  # fmt: skip
    """Multiply-adds of a picture in each form, border lines included."""
    source = without_numbers(_ghost(model, scale, ghost, direction, size, seed))
    with torch.device("meta"):
        dense = create_model(model, scale, None, **size).eval()
    found = {"dense": dense, "ghost": source, "deployed": deploy(source, diagonal=diagonal)}
    counted = {}
    for form, network in found.items():
        one = count_module(network, hr)
        counted[form] = one.macs + one.border_macs
    return {**counted, "official": counted["ghost"]}


def run(cfg: Any) -> Report:
    """Do what ``shiftghost-sr bench`` does; the picture goes to the run folder, rows to ``bench.csv`` there by default.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value is not allowed.
    """
    options = plain(cfg)
    keys = (
        "model", "scale", "ghost", "direction", "diagonal", "frames", "batch", "providers", "device", "precision",
        "threads", "warmup", "min_rounds", "min_seconds", "seed",
    )  # fmt: skip
    size = size_of(cfg)
    folder = run_dir()
    csv = check_csv(options["csv"], folder)
    return bench_report(**{key: options[key] for key in keys}, size=size, csv=csv, folder=folder)
