"""The variants of PyramidTNT by name; timm, which has none of them, learns them in :mod:`tnt_vit.checkpoints.zoo`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["PYRAMIDS", "PyramidVariant", "pyramid_cfg"]


@dataclass(frozen=True)
class PyramidVariant:
    """One of the published designs.

    Attributes:
        args: Arguments of :class:`~tnt_vit.pyramid.PyramidTNT` that differ from its defaults.
        official: Its name in the official code.
    """

    args: dict[str, Any]
    official: str


def _args(img_size: int, width: int, word: int, heads: int, inner: int, depths: tuple[int, ...]) -> dict[str, Any]:
    """Widths and heads grow by 1, 2, 4, 4 from stage to stage."""
    growth = (1, 2, 4, 4)
    return {
        "img_size": img_size,
        "embed_dims": tuple(width * g for g in growth),
        "inner_dims": tuple(word * g for g in growth),
        "num_heads": tuple(heads * g for g in growth),
        "inner_num_heads": tuple(inner * g for g in growth),
        "depths": depths,
    }


PYRAMIDS: dict[str, PyramidVariant] = {
    "pyramid_tnt_ti": PyramidVariant(_args(192, 80, 5, 2, 1, (2, 6, 3, 2)), "ptnt_ti_patch16_192"),
    "pyramid_tnt_s": PyramidVariant(_args(256, 128, 8, 4, 2, (2, 8, 4, 2)), "ptnt_s_patch16_256"),
    "pyramid_tnt_m": PyramidVariant(_args(256, 192, 12, 4, 2, (2, 8, 6, 2)), "ptnt_m_patch16_256"),
    "pyramid_tnt_b": PyramidVariant(_args(256, 256, 16, 4, 2, (2, 10, 6, 2)), "ptnt_b_patch16_256"),
}


def pyramid_cfg(variant: PyramidVariant) -> dict[str, Any]:
    """What timm is to know of a variant: its pictures, and the names of its first and last layer."""
    side = variant.args["img_size"]
    return {
        "url": "",  # the authors' weights are on a disk of Baidu's only
        "num_classes": 1000,
        "input_size": (3, side, side),
        "pool_size": None,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "first_conv": "patch_embed.common_conv.0",
        "classifier": "head",
        "paper_ids": "arXiv:2201.00978",
        "paper_name": "PyramidTNT: Improved Transformer-in-Transformer Baselines with Pyramid Architecture",
    }
