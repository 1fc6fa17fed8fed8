"""The peers' own RandAugment: a transform of one picture."""

from __future__ import annotations

from typing import Any

from PIL import Image

__all__ = ["HOW", "PEERS", "peer_transform"]

PEERS = ("timm", "torchvision")
HOW = {"nearest": Image.Resampling.NEAREST, "random": (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)}
"""What timm is told of the interpolation."""


def peer_transform(peer: str, n: int, m: float, interpolation: str, fill: int | None = None) -> Any:
    """A peer's RandAugment, applied always.

    Args:
        peer: One of ``PEERS``.
        n: Operators per picture.
        m: The magnitude; torchvision reads it as a bin of 31.
        interpolation: A key of ``HOW``; torchvision's is bilinear for ``random``.
        fill: Value of what an affine operator leaves empty; the peer's own if ``None``.
    """
    if peer == "timm":
        from timm.data.auto_augment import rand_augment_transform

        hparams = {"img_mean": (128 if fill is None else fill,) * 3, "interpolation": HOW[interpolation]}
        return rand_augment_transform(f"rand-m{m:g}-n{n}-p1.0", hparams)
    from torchvision.transforms import InterpolationMode, v2

    how = InterpolationMode.NEAREST if interpolation == "nearest" else InterpolationMode.BILINEAR
    return v2.RandAugment(n, int(m), interpolation=how, fill=fill)
