"""The variants of PyramidTNT by name, here and in timm's registry, which has none of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from timm.data import IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

# This module is imported as soon as timm is, which may be in the middle of tnt_vit.model's own imports.
if TYPE_CHECKING:
    from tnt_vit.pyramid import PyramidTNT

__all__ = ["PYRAMIDS", "PyramidVariant", "build_pyramid"]


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


def _cfg(variant: PyramidVariant) -> dict[str, Any]:
    side = variant.args["img_size"]
    return {
        "url": "",  # the authors' weights are on a disk of Baidu's only
        "num_classes": 1000,
        "input_size": (3, side, side),
        "pool_size": None,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": IMAGENET_INCEPTION_MEAN,
        "std": IMAGENET_INCEPTION_STD,
        "first_conv": "patch_embed.common_conv.0",
        "classifier": "head",
        "paper_ids": "arXiv:2201.00978",
        "paper_name": "PyramidTNT: Improved Transformer-in-Transformer Baselines with Pyramid Architecture",
    }


default_cfgs = generate_default_cfgs({name: _cfg(variant) for name, variant in PYRAMIDS.items()})


def _entry_point(name: str) -> Callable[..., PyramidTNT]:
    def build(pretrained: bool = False, **kwargs: Any) -> PyramidTNT:
        from tnt_vit.checkpoints.pyramid_weights import adapt_pyramid
        from tnt_vit.pyramid import PyramidTNT

        kwargs.pop("cache_dir", None)
        args = {**PYRAMIDS[name].args, **kwargs}
        out_indices = args.pop("out_indices", tuple(range(len(args["depths"]))))
        return build_model_with_cfg(
            PyramidTNT,
            name,
            pretrained,
            pretrained_filter_fn=adapt_pyramid,
            feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
            **args,
        )

    build.__name__ = build.__qualname__ = name
    build.__module__ = __name__
    build.__doc__ = f"PyramidTNT, {PYRAMIDS[name].official} of the official code: {PYRAMIDS[name].args}."
    return build


for _name in PYRAMIDS:
    _build = _entry_point(_name)
    globals()[_name] = _build
    __all__ += [_name]  # timm reads a module's __all__ to list its models
    register_model(_build)


def build_pyramid(name: str) -> Callable[..., PyramidTNT]:
    """What builds a variant; takes ``pretrained`` and arguments of :class:`~tnt_vit.pyramid.PyramidTNT`."""
    return globals()[name]
