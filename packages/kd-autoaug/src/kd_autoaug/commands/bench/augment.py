"""``kd-autoaug bench augment``: RandAugment on a batch of tensors, beside timm and torchvision on Pillow pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from effkit.device import resolve_device
from effkit.errors import UserError, choose
from effkit.report import Report, Table
from effkit.results import ResultRow, append_csv
from effkit.timing import Comparison, compare, machine_floor
from kd_autoaug.augmentation.augment import BatchAugment
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.commands.bench.shared import OURS, photographs

__all__ = ["PEERS", "augment_report"]

PEERS = ("timm", "torchvision")
_HOW = {"nearest": Image.Resampling.NEAREST, "random": (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)}


def _peer(provider: str, pictures: list[Image.Image], n: int, m: float, interpolation: str) -> Callable[[], None]:
    """The peer's own transform, picture by picture, from Pillow picture to Pillow picture."""
    if provider == "timm":
        from timm.data.auto_augment import rand_augment_transform

        hparams = {"img_mean": (128, 128, 128), "interpolation": _HOW[interpolation]}
        transform: Any = rand_augment_transform(f"rand-m{m:g}-n{n}-p1.0", hparams)
    else:
        from torchvision.transforms import InterpolationMode, v2

        how = InterpolationMode.NEAREST if interpolation == "nearest" else InterpolationMode.BILINEAR
        transform = v2.RandAugment(n, int(m), interpolation=how, fill=128)

    def run() -> None:
        for picture in pictures:
            transform(picture)

    return run


def augment_report(
    *,
    size: int,
    batch_size: int,
    n: int,
    m: float,
    interpolation: str,
    providers: Sequence[str] | None,
    device: str,
    threads: int | None,
    min_rounds: int,
    min_seconds: float,
    csv: str | Path | None,
    seed: int,
) -> Report:
    """Time RandAugment, applied always: ours on a batch of tensors, the peers on as many Pillow pictures.

    Ours includes drawing the parameters. Every call of ours is another view, as every call of the peers draws anew.

    Args:
        size: Side of the pictures.
        batch_size: Pictures per call.
        n: Operators per picture.
        m: timm's magnitude, which ours takes too; torchvision reads it as a bin of 31.
        interpolation: ``nearest``, or ``random`` (bilinear or bicubic; torchvision: bilinear).
        providers: Keys of ``OURS`` and ``PEERS``; what runs here if ``None``.
        device: Where ours runs; the peers are timed on a CPU only.
        threads: CPU threads.
        min_rounds: Rounds at least.
        min_seconds: Seconds at least.
        csv: File to append the rows to.
        seed: Of our draws.

    Raises:
        UserError: If a value is not allowed.
    """
    choose("interpolation", interpolation, _HOW)
    where = resolve_device(device)
    on_cpu = where.type == "cpu"
    names = list(providers or (["ours", "timm", "torchvision"] if on_cpu else ["ours", "torch"]))
    for name in names:
        choose("bench.providers", name, [*OURS, *PEERS])
        if name in PEERS and not on_cpu:
            raise UserError(f"providers: {name} works on the CPU, not on {where}; leave it out")
    images = photographs(batch_size, size)
    pictures = [Image.fromarray(p.permute(1, 2, 0).contiguous().numpy()) for p in images]
    images = images.to(where)
    index = torch.arange(batch_size, device=where)
    policy = Policy.random(n=n, m=m, space="timm", prob=1.0, interpolation=_interpolations(interpolation))
    calls: dict[str, Callable[[], Any]] = {}
    for name in names:
        if name in PEERS:
            calls[name] = _peer(name, pictures, n, m, interpolation)
        else:
            calls[name] = _ours(BatchAugment(policy, seed, backend=OURS[name]), images, index)
    result = compare(calls, device=where, threads=threads, min_rounds=min_rounds, min_seconds=min_seconds, memory=False)
    title = f"RandAugment N={n} M={m:g} {interpolation}, {size}x{size}, batches of {batch_size}"
    floor = machine_floor(where, threads=threads)
    limit = floor.seconds(moved_bytes=images.numel() * 2 * n)
    return _report(result, names, batch_size, title, f"{size}x{size} N={n} {interpolation}", limit, csv)


def _interpolations(interpolation: str) -> list[str]:
    """What a policy is told: one interpolation, or those to draw from."""
    return ["nearest"] if interpolation == "nearest" else ["bilinear", "bicubic"]


def _ours(augment: BatchAugment, images: Tensor, index: Tensor) -> Callable[[], Tensor]:
    calls = 0

    def run() -> Tensor:
        nonlocal calls
        calls += 1
        return augment(images, index, calls)

    return run


def _report(
    result: Comparison, names: list[str], batch: int, title: str, mode: str, limit: float, csv: str | Path | None
) -> Report:
    baseline = next((p for p in PEERS if p in names), names[-1])
    table = result.table(baseline, title=title)
    table.note += f" Reading and writing every byte once per operator takes {1e3 * limit:.2f} ms here."
    per_picture = Table(
        "Per picture",
        ["side", "microseconds"],
        [[name, round(1e6 * t.median / batch, 2)] for name, t in result.timings.items()],
    )
    rows = result.rows(package="kd-autoaug", case="augment", mode=mode, dtype="uint8", x=batch, baseline=baseline)
    for peer in PEERS:
        if peer in names and peer != baseline:
            rows += [_ratio(rows[0], name, peer, result) for name in names if name not in PEERS]
    rows.append(_floor(rows[0], limit))
    data = {
        "seconds": {name: t.median for name, t in result.timings.items()},
        "faster_than": {p: {n: result.ratio(p, n).median for n in names if n != p} for p in PEERS if p in names},
        "floor_seconds": limit,
    }
    files = [append_csv(csv, rows)] if csv else []
    return Report("kd-autoaug bench", [table, per_picture], data=data, files=files)


def _ratio(like: ResultRow, provider: str, peer: str, result: Comparison) -> ResultRow:
    median, p20, p80 = result.ratio(peer, provider)
    return dataclasses.replace(
        like, provider=provider, metric=f"ratio_to_{peer}", unit="x", median=median, p20=p20, p80=p80
    )


def _floor(like: ResultRow, seconds: float) -> ResultRow:
    note = "bytes read and written once per operator / copy rate"
    return dataclasses.replace(like, provider="floor", median=seconds, p20=None, p80=None, note=note)
