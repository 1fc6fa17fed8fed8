"""Speed beside the official formulation and the plain block, all sides interleaved in one run."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from augshortcut.commands.build import plain
from augshortcut.commands.peers import GatheredShortcut, Residual, gathered_block
from augshortcut.config import AugmentConfig, preset
from augshortcut.injection.augment import augment
from augshortcut.injection.fold import fold
from augshortcut.layers.shortcut import AugmentedShortcut
from effkit.arguments import renamed
from effkit.bench import Bench, check_counts, check_providers, inference, training_step
from effkit.cli import run_dir
from effkit.cost import measure
from effkit.device import seed_everything
from effkit.errors import UserError, choose
from effkit.report import Report

__all__ = ["BLOCKS", "PATHS", "bench_report", "build_provider", "run"]

PATHS = {
    "ours": "AugmentedShortcut with the backend that auto takes",
    "crt1": "one split: half of the dense multiply-adds",
    "crt2": "two splits: a quarter",
    "crt3": "three splits: an eighth",
    "dense": "one product with the dense matrix of all paths",
    "fft": "float32 FFTs",
    "triton": "one kernel for all paths (CUDA)",
    "frozen": "ours with constants instead of weights, for inference (fold)",
    "official": "the official code: each matrix gathered by an index table, then a dense product",
}
"""Providers of the case ``paths``: both sub-layers' paths beside an identity, nothing else."""

BLOCKS = {
    "plain": "timm's block without paths",
    **PATHS,
    "bottleneck": "one bottleneck of width d / 32 beside attention",
    "bottleneck_folded": "the same, inside qkv and projection (fold)",
}
"""Providers of the case ``block``: a whole transformer block with these paths."""

_WIDTHS = {192: 3, 384: 6, 768: 12}  # heads
_CONFIGS: dict[str, dict[str, Any]] = {
    "ours": {},
    "official": {},
    "frozen": {},
    "crt1": {"backend": "crt", "crt_level": 1},
    "crt2": {"backend": "crt", "crt_level": 2},
    "crt3": {"backend": "crt", "crt_level": 3},
    "dense": {"backend": "dense"},
    "fft": {"backend": "fft"},
    "triton": {"backend": "triton"},
}


def _config(provider: str) -> AugmentConfig:
    if provider.startswith("bottleneck"):
        return preset("pangu")
    return preset("paper", **_CONFIGS[provider])


class _One(nn.Module):
    """A network of one block, so that whatever takes networks takes it."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


def build_provider(provider: str, what: str, width: int, seed: int = 0) -> nn.Module:
    """A provider's module; all have the same random weights.

    Args:
        provider: A key of :data:`PATHS` or :data:`BLOCKS`.
        what: ``paths`` or ``block``.
        width: d.
        seed: Of the weights.

    Raises:
        ValueError: If the provider is unknown, or cannot run.
    """
    choose("providers", provider, PATHS if what == "paths" else BLOCKS)
    torch.manual_seed(seed)
    if what == "paths":
        pair = [AugmentedShortcut(width, _config(provider)) for _ in range(2)]
        if provider == "frozen":
            from augshortcut.injection.folded import FrozenPaths

            return Residual(*(FrozenPaths.of(one) for one in pair)).requires_grad_(False)
        return Residual(*([GatheredShortcut(one) for one in pair] if provider == "official" else pair))
    from timm.models.vision_transformer import Block

    network = _One(Block(width, _WIDTHS[width], qkv_bias=True))
    if provider == "plain":
        return network
    augment(network, _config(provider))
    if provider == "official":
        network.block = gathered_block(network.block)
    return fold(network) if provider in ("frozen", "bottleneck_folded") else network


def bench_report(
    what: str = "paths",
    width: int = 384,
    *,
    batch_sizes: Sequence[int] = (1, 8),
    tokens: int = 197,
    providers: Sequence[str] | None = None,
    mode: str = "inference",
    compile: bool = False,
    compile_mode: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    min_rounds: int = 10,
    min_seconds: float = 10.0,
    seed: int = 0,
    csv: str | Path | None = None,
    folder: Path | None = None,
) -> Report:
    """Time the providers against each other and print ratios and the floor.

    Args:
        what: ``paths`` (both sub-layers' paths alone) or ``block`` (a whole transformer block).
        width: 192, 384 or 768.
        batch_sizes: Pictures a call.
        tokens: Tokens a picture.
        providers: Keys of :data:`PATHS` or :data:`BLOCKS`; a few that fit the mode if not given. Ratios are taken
            against ``official`` (paths) or ``plain`` (block).
        mode: ``inference``, or ``train`` for forward and backward.
        compile: Run every provider through ``torch.compile``.
        compile_mode: torch's compile mode.
        device: ``auto``, ``cpu``, ``cuda``...
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16``.
        threads: CPU threads; torch's choice if not given.
        min_rounds: Rounds at least.
        min_seconds: Seconds a case at least, all providers together.
        seed: Of weights and inputs.
        csv: File to append the rows to.
        folder: Gets the picture ``bench.png``.

    Returns:
        A table a batch size; ``data`` holds times, ratios and floors.

    Raises:
        ValueError: If an argument is unknown or a provider cannot run.
    """
    choose("what", what, ["paths", "block"])
    choose("mode", mode, ["inference", "train"])
    choose("width", width, list(_WIDTHS))
    known = PATHS if what == "paths" else BLOCKS
    usual = ["ours", "dense", "official"] if what == "paths" else ["plain", "ours", "official", "bottleneck_folded"]
    if mode == "train":
        usual = [name for name in usual if name not in ("frozen", "bottleneck_folded")]
    names = check_providers(usual if providers is None else providers, known, "providers")
    frozen = {"frozen", "bottleneck_folded"} & set(names)
    if mode == "train" and frozen:
        raise UserError(f"mode=train times what can be trained; leave {', '.join(sorted(frozen))} out of providers")
    batches = check_counts("batch_sizes", batch_sizes)
    (count,) = check_counts("tokens", tokens)
    bench = Bench(
        "augshortcut",
        device=device,
        precision=precision,
        threads=threads,
        min_rounds=min_rounds,
        min_seconds=min_seconds,
    )
    dtype = torch.float32 if mode == "train" else bench.dtype  # weights stay float32 in training
    modules = {n: build_provider(n, what, width, seed).to(device=bench.device, dtype=dtype).eval() for n in names}
    baseline = "official" if what == "paths" else "plain"
    baseline = baseline if baseline in names else names[-1]
    macs = {n: measure(_countable(n, what, width), torch.zeros(1, count, width)).macs for n in names}
    label = f"{mode} {'compile' if compile else 'eager'}"
    data: dict[str, Any] = {}
    seed_everything(seed)
    for batch in batches:
        x = torch.randn(batch, count, width, device=bench.device, dtype=dtype)
        ready = {n: torch.compile(m, mode=compile_mode) if compile else m for n, m in modules.items()}
        if mode == "train":
            calls: Any = {n: training_step(m, x, bench.dtype) for n, m in ready.items()}
        else:
            calls = {n: inference(m, x) for n, m in ready.items()}
        factor = 3 if mode == "train" else 1  # a training step multiplies three times as much
        limits = {n: bench.floor.seconds(macs=macs[n] * batch * factor) for n in names}
        case = bench.run(
            calls,
            case=f"{what} {width}",
            mode=label,
            x=batch,
            title=f"{what}, width {width}, {count} tokens, batch {batch}, {bench.precision}, {label}",
            baseline=baseline,
            limits=limits,
            limit_note="MACs / GEMM rate",
            note=compile_mode or "",
            warmup=5 if compile else 3,
        )
        data[f"batch_{batch}"] = {
            "seconds": case.seconds,
            f"faster_than_{baseline}": case.faster_than(baseline),
            "floor_seconds": limits,
            "macs": {n: macs[n] * batch for n in names},
        }
    return bench.report(f"augshortcut bench {what}", data, csv=csv, folder=folder)


def _countable(provider: str, what: str, width: int) -> nn.Module:
    """A provider's module for counting: the kernel's multiply-adds are those of one split."""
    module = build_provider("crt1" if provider == "triton" else provider, what, width)
    return copy.deepcopy(module).float()


def run(cfg: Any) -> Report:
    """Do what ``augshortcut bench`` does; the picture goes to the run folder, rows to ``bench.csv`` there by default.

    Args:
        cfg: The composed config.

    Raises:
        ValueError: If an argument is unknown.
    """
    what = plain(cfg, "what", "width", "batch_sizes", "tokens", "providers", "mode", "compile", "compile_mode")
    how = plain(cfg, "device", "precision", "threads", "min_rounds", "min_seconds", "seed")
    folder = run_dir()
    with renamed({"backend": "providers"}):  # of a path that cannot run here
        return bench_report(**what, **how, csv=cfg.csv or folder / "bench.csv", folder=folder)
