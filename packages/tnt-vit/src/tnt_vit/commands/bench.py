"""Speed beside the peers: timm's TNT-S and DeiT-S on the same device, all sides interleaved in one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from effkit.cli import run_dir
from effkit.cost import measure_image
from effkit.device import autocast, resolve_device, resolve_precision
from effkit.errors import UserError, choose
from effkit.report import Report
from effkit.results import ResultRow, append_csv
from effkit.timing import compare, machine_floor
from tnt_vit.checkpoints.zoo import VARIANTS, create_model, full_name
from tnt_vit.commands.options import options
from tnt_vit.inference.optimize import optimize_for_inference

__all__ = ["PROVIDERS", "bench_report", "build_provider", "run"]

PROVIDERS = {
    "ours": "tnt_vit rewritten by optimize_for_inference",
    "ours_words_first": "the same, words run through all layers first (R1)",
    "ours_layers": "the same, words and sentences layer by layer",
    "ours_module": "tnt_vit.TNT, the trainable module",
    "timm": "timm's TNT with the same weights",
    "deit": "timm's plain ViT of the same outer size",
}
_ORDERS: dict[str, Any] = {"ours": "auto", "ours_words_first": "words_first", "ours_layers": "layers"}
_PEER_VIT = {192: "deit_tiny_patch16_224", 384: "deit_small_patch16_224"}
_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def build_provider(provider: str, variant: str, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A provider's network in evaluation mode; ours and timm's share their weights (random, seeded).

    Args:
        provider: A key of :data:`PROVIDERS`.
        variant: A key of :data:`tnt_vit.checkpoints.zoo.VARIANTS`.
        device: Where to put it.
        dtype: Type of weights and pictures.

    Raises:
        ValueError: If the provider is unknown or has no such variant.
    """
    import timm

    choose("bench.providers", provider, list(PROVIDERS))
    torch.manual_seed(0)
    model: Any = create_model(variant)
    if provider == "timm":
        if not VARIANTS[variant].hub:
            raise UserError(
                f"timm has no {variant}; leave 'timm' out of providers or use model=tnt_s, tnt_b or tnt_s_legacy"
            )
        peer = timm.create_model(variant)
        peer.load_state_dict(model.state_dict())
        model = peer
    elif provider == "deit":
        width = model.embed_dim
        if width not in _PEER_VIT or model.img_size != (224, 224):
            raise UserError(f"there is no DeiT of width {width} for {model.img_size}; leave 'deit' out of providers")
        model = timm.create_model(_PEER_VIT[width])
    model = model.to(device=device, dtype=dtype).eval()
    if provider in _ORDERS:
        model = optimize_for_inference(model, order=_ORDERS[provider])
    return model


def _training_step(model: Any, x: Tensor) -> Callable[[], None]:
    model.train()

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model(x).float().square().mean().backward()

    return step


def _inference(model: Any, x: Tensor) -> Callable[[], Any]:
    def run() -> Any:
        with torch.inference_mode():
            return model(x)

    return run


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
) -> Report:
    """Time the providers against each other and print ratios and the floor.

    Args:
        variant: Which TNT.
        batch_sizes: Pictures a call.
        providers: Keys of :data:`PROVIDERS`; the ratio is taken against ``timm`` if it is among them, else the last.
        mode: ``inference``, or ``train`` for forward and backward of the trainable modules.
        compile: Run every provider through ``torch.compile``.
        compile_mode: torch's compile mode, e.g. ``reduce-overhead`` or ``max-autotune``.
        device: ``auto``, ``cpu``, ``cuda``...
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16``: type of weights and pictures.
        threads: CPU threads; torch's choice if not given.
        min_rounds: Rounds at least.
        min_seconds: Seconds at least, all providers together.
        csv: File to append the rows to.

    Returns:
        A table a batch size; ``data`` holds the ratios.

    Raises:
        ValueError: If an argument is unknown.
    """
    choose("mode", mode, ["inference", "train"])
    names = [choose("bench.providers", p, list(PROVIDERS)) for p in providers]
    if not names:
        raise UserError(f"providers is empty, name some of {', '.join(PROVIDERS)}")
    if mode == "train" and any(n in _ORDERS for n in names):
        raise UserError("mode=train times trainable modules; use providers=[ours_module,timm,deit]")
    for batch in batch_sizes:
        if not isinstance(batch, int) or batch < 1:
            raise UserError(f"batch_sizes must be whole numbers of at least 1, got {batch!r}")
    choose("variant", variant, list(VARIANTS))
    where = resolve_device(device)
    dtype = resolve_precision(precision, where)
    amp = mode == "train" and dtype != torch.float32  # weights stay float32 in training
    models = {n: build_provider(n, variant, where, torch.float32 if amp else dtype) for n in names}
    side = VARIANTS[variant].args.get("img_size", 224)
    baseline = "timm" if "timm" in names else names[-1]
    floor = machine_floor(where, dtype, threads=threads)
    macs = _macs(variant)
    tables, rows, data = [], [], {}
    for batch in batch_sizes:
        x = torch.randn(batch, 3, side, side, device=where, dtype=torch.float32 if amp else dtype)
        calls: dict[str, Callable[[], Any]] = {}
        for name, model in models.items():
            ready = torch.compile(model, mode=compile_mode) if compile else model
            call = (_training_step if mode == "train" else _inference)(ready, x)
            calls[name] = _with_autocast(call, where, dtype) if amp else call
        result = compare(
            calls,
            device=where,
            min_rounds=min_rounds,
            min_seconds=min_seconds,
            threads=threads,
            warmup=5 if compile else 3,
        )
        label = f"{mode} {'compile' if compile else 'eager'}"
        table = result.table(baseline, title=f"{variant}, batch {batch}, {_NAMES[dtype]}, {label}")
        # A training step multiplies three times as much as a forward pass.
        limit = floor.seconds(macs=macs * batch * (3 if mode == "train" else 1))
        table.note += (
            f" Floor: {macs / 1e9:.2f} GMACs a picture at the {floor.flops_per_second / 1e9:,.0f} GFLOP/s of this "
            "machine's "
            f"large matrix product are {1e3 * limit:.2f} ms."
        )
        tables.append(table)
        rows += result.rows(
            package="tnt-vit",
            case=variant,
            mode=label,
            dtype=_NAMES[dtype],
            x=batch,
            baseline=baseline,
            note=compile_mode or "",
        )
        rows.append(_floor_row(rows[-1], limit))
        data[f"batch_{batch}"] = {
            "seconds": {n: t.median for n, t in result.timings.items()},
            f"faster_than_{baseline}": {n: result.ratio(baseline, n).median for n in names},
            "floor_seconds": limit,
        }
    files = [append_csv(csv, rows)] if csv else []
    return Report(f"tnt-vit bench {variant}", tables=tables, data=data, files=files)


def _with_autocast(call: Callable[[], Any], device: torch.device, dtype: torch.dtype) -> Callable[[], Any]:
    def run() -> Any:
        with autocast(device, dtype):
            return call()

    return run


def _macs(variant: str) -> int:
    with torch.device("meta"):
        model = create_model(variant, backend="reference")
    return measure_image(model, model.img_size).macs


def _floor_row(like: ResultRow, seconds: float) -> ResultRow:
    return dataclasses.replace(
        like, provider="floor", metric="time", unit="s", median=seconds, p20=None, p80=None, note="MACs / GEMM rate"
    )


def run(cfg: Any) -> Report:
    """Do what ``tnt-vit bench`` does; the rows go to ``bench.csv`` in the run folder if no file is named.

    Args:
        cfg: The composed config.

    Raises:
        ValueError: If an argument is unknown.
    """
    what = options(cfg, "batch_sizes", "providers", "mode", "compile", "compile_mode")
    how = options(cfg, "device", "precision", "threads", "min_rounds", "min_seconds")
    return bench_report(full_name(cfg.model.name), **what, **how, csv=cfg.csv or run_dir() / "bench.csv")
