"""``kd-autoaug bench single``: RandAugment on pictures that come alone, each a call of its own, as in a ``Dataset``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from effkit.bench import Bench
from effkit.errors import UserError, choose
from effkit.report import Report, Table
from kd_autoaug.augmentation.adapters import AugmentTransform
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.commands.bench.peers import HOW, PEERS, peer_transform
from kd_autoaug.commands.bench.shared import photographs

__all__ = ["KINDS", "single_report"]

KINDS = ("pillow", "tensor")
_INTERPOLATIONS = {"nearest": ["nearest"], "timm": ["bilinear", "bicubic"], "torchvision": ["bilinear"]}


def single_report(
    bench: Bench,
    *,
    size: int,
    batch_size: int,
    n: int,
    m: float,
    interpolation: str,
    peer: str,
    kind: str,
    seed: int,
    csv: str | Path | None,
    folder: Path | None = None,
) -> Report:
    """Time RandAugment on single pictures: ours and the peer's, with the peer's operators and magnitudes.

    Args:
        bench: On a CPU.
        size: Side of the pictures.
        batch_size: Pictures a round; each is a call of its own.
        n: Operators per picture.
        m: The peer's magnitude.
        interpolation: ``nearest``, or ``random``: what timm draws from, for torchvision bilinear.
        peer: One of ``PEERS``.
        kind: What a picture is: ``pillow`` or ``tensor`` (uint8; timm takes none).
        seed: Of our draws.
        csv: File to append the rows to.
        folder: Gets a picture.

    Raises:
        UserError: If a value is not allowed.
    """
    choose("interpolation", interpolation, HOW)
    choose("peer", peer, PEERS)
    choose("kind", kind, KINDS)
    if bench.device.type != "cpu":
        raise UserError(f"device={bench.device}: single pictures are augmented on the CPU; leave it out")
    if kind == "tensor" and peer == "timm":
        raise UserError("kind='tensor': timm takes Pillow pictures only; peer=torchvision takes tensors")
    images = photographs(batch_size, size)
    pictures: Sequence[Any] = list(images)
    if kind == "pillow":
        pictures = [Image.fromarray(p.permute(1, 2, 0).contiguous().numpy()) for p in images]
    names = _INTERPOLATIONS["nearest" if interpolation == "nearest" else peer]
    policy = Policy.random(n=n, m=m, space=peer, prob=1.0, interpolation=names)
    ours = AugmentTransform(policy, seed)
    calls = {
        "ours": _one_by_one(ours, pictures),
        peer: _one_by_one(peer_transform(peer, n, m, interpolation), pictures),
    }
    limit = bench.floor.seconds(moved_bytes=images.numel() * 2 * n)
    measured = bench.run(
        calls,
        case="single",
        mode=f"{size}x{size} N={n} {interpolation}, single {kind}, operators of {peer}",
        x=batch_size,
        title=f"RandAugment N={n} M={m:g} {interpolation} of {peer}, {size}x{size}, {batch_size} {kind} pictures alone",
        baseline=peer,
        limits=limit,
        limit_note="bytes read and written once per operator / copy rate",
        dtype="uint8",
    )
    data = {"seconds": measured.seconds, "faster_than": measured.faster_than(peer)["ours"], "floor_seconds": limit}
    report = bench.report("kd-autoaug bench single", data, csv=csv, folder=folder)
    per_picture = [[name, round(1e6 * t / batch_size, 2)] for name, t in measured.seconds.items()]
    report.tables.append(Table("Per picture", ["side", "microseconds"], per_picture))
    return report


def _one_by_one(transform: Callable[[Any], Any], pictures: Sequence[Any]) -> Callable[[], None]:
    def run() -> None:
        for picture in pictures:
            transform(picture)

    return run
