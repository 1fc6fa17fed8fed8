"""``kd-autoaug bench augment``: RandAugment on a batch of tensors, beside timm and torchvision on Pillow pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from effkit.bench import Bench, Measured, check_providers
from effkit.errors import UserError, choose
from effkit.report import Report, Table
from kd_autoaug.augmentation.augment import BatchAugment
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.commands.bench.peers import HOW, PEERS, peer_transform
from kd_autoaug.commands.bench.shared import OURS, photographs

__all__ = ["augment_report"]


def _peer(provider: str, pictures: list[Image.Image], n: int, m: float, interpolation: str) -> Callable[[], None]:
    """The peer's own transform, picture by picture, from Pillow picture to Pillow picture."""
    transform = peer_transform(provider, n, m, interpolation, fill=128)

    def run() -> None:
        for picture in pictures:
            transform(picture)

    return run


def augment_report(
    bench: Bench,
    *,
    size: int,
    batch_size: int,
    n: int,
    m: float,
    interpolation: str,
    providers: Sequence[str] | None,
    seed: int,
    csv: str | Path | None,
    folder: Path | None = None,
) -> Report:
    """Time RandAugment, applied always: ours on a batch of tensors, the peers on as many Pillow pictures.

    Ours includes drawing the parameters. Every call of ours is another view, as every call of the peers draws anew.

    Args:
        bench: On the device where ours runs; the peers are timed on a CPU only.
        size: Side of the pictures.
        batch_size: Pictures per call.
        n: Operators per picture.
        m: timm's magnitude, which ours takes too; torchvision reads it as a bin of 31.
        interpolation: ``nearest``, or ``random`` (bilinear or bicubic; torchvision: bilinear).
        providers: Keys of ``OURS`` and ``PEERS``; what runs here if ``None``.
        seed: Of our draws.
        csv: File to append the rows to.
        folder: Gets a picture.

    Raises:
        UserError: If a value is not allowed.
    """
    choose("interpolation", interpolation, HOW)
    if n < 1:
        raise UserError(f"n={n} must be at least 1 operator")
    if not 0 <= m <= 10:
        raise UserError(f"m={m} must be in 0..10, the magnitudes of timm")
    on_cpu = bench.device.type == "cpu"
    usual = ["ours", "timm", "torchvision"] if on_cpu else ["ours", "torch"]
    names = check_providers(providers or usual, [*OURS, *PEERS])
    foreign = [name for name in names if name in PEERS and not on_cpu]
    if foreign:
        raise UserError(f"providers: {foreign[0]} works on the CPU, not on {bench.device}; leave it out")
    images = photographs(batch_size, size)
    pictures = [Image.fromarray(p.permute(1, 2, 0).contiguous().numpy()) for p in images]
    images = images.to(bench.device)
    index = torch.arange(batch_size, device=bench.device)
    policy = Policy.random(n=n, m=m, space="timm", prob=1.0, interpolation=_interpolations(interpolation))
    calls: dict[str, Callable[[], Any]] = {}
    for name in names:
        if name in PEERS:
            calls[name] = _peer(name, pictures, n, m, interpolation)
        else:
            calls[name] = _ours(BatchAugment(policy, seed, backend=OURS[name]), images, index)
    limit = bench.floor.seconds(moved_bytes=images.numel() * 2 * n)
    measured = bench.run(
        calls,
        case="augment",
        mode=f"{size}x{size} N={n} {interpolation}",
        x=batch_size,
        title=f"RandAugment N={n} M={m:g} {interpolation}, {size}x{size}, batches of {batch_size}",
        baseline=next((p for p in PEERS if p in names), names[-1]),
        peers=PEERS,
        limits=limit,
        limit_note="bytes read and written once per operator / copy rate",
        dtype="uint8",
    )
    measured.table.note += f" Reading and writing every byte once per operator takes {1e3 * limit:.2f} ms here."
    report = bench.report("kd-autoaug bench", _data(measured, limit), csv=csv, folder=folder)
    per_picture = [[name, round(1e6 * t / batch_size, 2)] for name, t in measured.seconds.items()]
    report.tables.append(Table("Per picture", ["side", "microseconds"], per_picture))
    return report


def _data(measured: Measured, limit: float) -> dict[str, Any]:
    peers = [p for p in PEERS if p in measured.seconds]
    faster = {p: {n: r for n, r in measured.faster_than(p).items() if n != p} for p in peers}
    return {"seconds": measured.seconds, "faster_than": faster, "floor_seconds": limit}


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
