"""Speed beside the peers: timm's TNT-S and DeiT-S on the same device, all sides interleaved in one run.

On a CPU the matrix products of ours alone take turns with them (the row ``products``): what shapes and kernels allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from effkit.arguments import check_arguments
from effkit.bench import Bench, check_counts, check_csv, check_providers, inference, training_step
from effkit.cli import run_dir
from effkit.cost import measure_image
from effkit.device import seed_everything
from effkit.errors import UserError, choose
from effkit.report import Report
from tnt_vit.checkpoints.zoo import VARIANTS, create_model, full_name
from tnt_vit.commands.bench.parts import parts_report
from tnt_vit.commands.bench.products import products
from tnt_vit.commands.bench.providers import ORDERS, PROVIDERS, build_provider
from tnt_vit.commands.options import options
from tnt_vit.inference.optimize import InferenceTNT

__all__ = ["bench_report", "run"]


def bench_report(
    variant: str = "tnt_s_patch16_224",
    *,
    batch_sizes: Sequence[int] = (1, 8),
    providers: Sequence[str] = ("ours", "timm", "deit"),
    mode: str = "inference",
    compile: bool = False,
    compile_mode: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    min_rounds: int = 10,
    min_seconds: float = 10.0,
    csv: str | Path | None = None,
    folder: Path | None = None,
    seed: int = 0,
) -> Report:
    """Time the providers against each other and print ratios and the floor.

    Args:
        variant: Which TNT.
        batch_sizes: Pictures a call.
        providers: Keys of :data:`PROVIDERS`; the ratio is taken against ``timm`` if it is among them, else the last.
        mode: ``inference``, ``train`` for forward and backward of the trainable modules, or ``parts`` for the shares of
            one of ours.
        compile: Run every provider through ``torch.compile``.
        compile_mode: torch's compile mode, e.g. ``reduce-overhead`` or ``max-autotune``.
        device: ``auto``, ``cpu``, ``cuda``...
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16``: type of weights and pictures.
        threads: CPU threads; torch's choice if not given.
        min_rounds: Rounds at least.
        min_seconds: Seconds at least, all providers together.
        csv: File to append the rows to.
        folder: Gets the picture ``bench.png``.
        seed: Of weights and pictures.

    Returns:
        A table a batch size; ``data`` holds the ratios.

    Raises:
        ValueError: If an argument is unknown.
    """
    given = {"mode": mode, "compile": compile, "compile_mode": compile_mode}
    check_arguments(bench_report, given)
    choose("mode", mode, ["inference", "train", "parts"])
    if compile_mode is not None:
        choose("compile_mode", compile_mode, list(torch._inductor.list_mode_options()))
    names = check_providers(providers, PROVIDERS)
    seed_everything(seed)
    if mode == "train" and any(n in ORDERS for n in names):
        raise UserError("mode=train times trainable modules; use providers=[ours_module,timm,deit]")
    batches = check_counts("batch_sizes", batch_sizes)
    choose("model.name", variant, list(VARIANTS))
    bench = Bench(
        "tnt-vit", device=device, precision=precision, threads=threads, min_rounds=min_rounds, min_seconds=min_seconds
    )
    dtype = torch.float32 if mode == "train" else bench.dtype  # weights stay float32 in training
    if mode == "parts":
        if compile:
            raise UserError("mode=parts clocks operators one by one, which compile=true joins; use compile=false")
        return parts_report(bench, variant, names, batches, seed, csv)
    models: dict[str, Any] = {n: build_provider(n, variant, bench.device, dtype, seed) for n in names}
    side = VARIANTS[variant].args.get("img_size", 224)
    baseline = "timm" if "timm" in names else names[-1]
    macs = _macs(variant)
    label = f"{mode} {'compile' if compile else 'eager'}"
    alone = "ours" in names and bench.device.type == "cpu" and not compile
    data: dict[str, Any] = {}
    for batch in batches:
        x = torch.randn(batch, 3, side, side, device=bench.device, dtype=dtype)
        ready = {n: torch.compile(m, mode=compile_mode) if compile else m for n, m in models.items()}
        if mode == "train":
            calls: Any = {n: training_step(model, x, bench.dtype) for n, model in ready.items()}
        else:
            calls = {n: inference(model, x) for n, model in ready.items()}
            if alone:
                calls["products"] = products(cast(InferenceTNT, models["ours"]), x)
        # A training step multiplies three times as much as a forward pass.
        limit = bench.floor.seconds(macs=macs * batch * (3 if mode == "train" else 1))
        case = bench.run(
            calls,
            case=variant,
            mode=label,
            x=batch,
            title=f"{variant}, batch {batch}, {bench.precision}, {label}",
            baseline=baseline,
            limits=limit,
            limit_note="MACs / GEMM rate",
            note=compile_mode or "",
            warmup=5 if compile else 3,
        )
        rate = f"{bench.floor.flops_per_second / 1e9:,.0f} GFLOP/s of this machine's large matrix product"
        case.table.note += f" Floor: {macs / 1e9:.2f} GMACs a picture at the {rate} are {1e3 * limit:.2f} ms."
        seconds = {n: case.seconds[n] for n in names}
        found = {"seconds": seconds, f"faster_than_{baseline}": case.faster_than(baseline), "floor_seconds": limit}
        if alone:
            share = case.result.ratio("products", "ours").median
            case.table.note += f" The products of ours alone take {100 * share:.0f} % of its time."
            found |= {"products_seconds": case.seconds["products"], "share_of_products": share}
        data[f"batch_{batch}"] = found
    return bench.report(f"tnt-vit bench {variant}", data, csv=csv, folder=folder)


def _macs(variant: str) -> int:
    with torch.device("meta"):
        model = create_model(variant, backend="reference")
    return measure_image(model, model.img_size).macs


def run(cfg: Any) -> Report:
    """Do what ``tnt-vit bench`` does; the picture goes to the run folder, rows to ``bench.csv`` there by default.

    Args:
        cfg: The composed config.

    Raises:
        ValueError: If an argument is unknown.
    """
    what = options(cfg, "batch_sizes", "providers", "mode", "compile", "compile_mode")
    how = options(cfg, "device", "precision", "threads", "min_rounds", "min_seconds", "seed")
    folder = run_dir()
    return bench_report(full_name(cfg.model.name), **what, **how, csv=check_csv(cfg.csv, folder), folder=folder)
