"""The paper's variants by name, here and in timm's registry.

Names of timm's own models (``tnt_s_patch16_224``...) stay timm's in its registry; ours stand beside them with the
prefix ``effkit_``, and :func:`create_model` takes either. New variants are registered under their plain names.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from timm.data import IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from effkit.errors import UserError, choose
from tnt_vit.checkpoints.pyramids import PYRAMIDS, pyramid_cfg

# This module is imported as soon as timm is, which may be in the middle of tnt_vit.model's own imports.
if TYPE_CHECKING:
    from tnt_vit.model import TNT
    from tnt_vit.pyramid import PyramidTNT

__all__ = ["VARIANTS", "Variant", "create_model", "full_name", "list_models"]


@dataclass(frozen=True)
class Variant:
    """One named configuration.

    Attributes:
        args: Arguments of :class:`~tnt_vit.model.TNT` that differ from its defaults.
        table: Where the paper has it.
        hub: Tag of published weights in timm's hub namespace, empty if there are none.
        note: What the paper leaves open.
    """

    args: dict[str, Any]
    table: str
    hub: str = ""
    note: str = ""
    crop_pct: float = 0.9
    extra: dict[str, Any] = field(default_factory=dict)


_TI: dict[str, Any] = {"embed_dim": 192, "inner_dim": 12, "num_heads": 3, "inner_num_heads": 2}
_S: dict[str, Any] = {"embed_dim": 384, "inner_dim": 24, "num_heads": 6, "inner_num_heads": 4}
_B: dict[str, Any] = {"embed_dim": 640, "inner_dim": 40, "num_heads": 10, "inner_num_heads": 4}

VARIANTS: dict[str, Variant] = {
    "tnt_ti_patch16_224": Variant(_TI, "Table 1"),
    "tnt_s_patch16_224": Variant(_S, "Table 1", hub="tnt_s_patch16_224.in1k"),
    "tnt_b_patch16_224": Variant(_B, "Table 1", hub="tnt_b_patch16_224.in1k"),
    "tnt_s_legacy_patch16_224": Variant({**_S, "legacy": True}, "arXiv v1", hub="tnt_s_legacy_patch16_224.in1k"),
    "tnt_ti_se_patch16_224": Variant({**_TI, "se_ratio": 0.25}, "", note="not in the paper"),
    "tnt_s_se_patch16_224": Variant({**_S, "se_ratio": 0.25}, "Table 12"),
    "tnt_b_se_patch16_224": Variant({**_B, "se_ratio": 0.25}, "", note="not in the paper"),
    "tnt_s_patch16_384": Variant({**_S, "img_size": 384}, "Table 9", crop_pct=1.0, note="crop_pct is not stated"),
    "tnt_b_patch16_384": Variant({**_B, "img_size": 384}, "Table 9", crop_pct=1.0, note="crop_pct is not stated"),
    "tnt_s1_patch16_224": Variant({**_S, "tnt_blocks": (1, 4, 8, 12)}, "Table 5"),
    "tnt_s2_patch16_224": Variant({**_S, "tnt_blocks": (1, 6, 12)}, "Table 5"),
    "tnt_s3_patch16_224": Variant({**_S, "tnt_blocks": (1, 6)}, "Table 5"),
    "tnt_s4_patch16_224": Variant({**_S, "tnt_blocks": (1,)}, "Table 5"),
    "tnt_s_m64_patch16_224": Variant(
        {**_S, "inner_dim": 6, "inner_num_heads": 3, "inner_stride": 2},
        "Table 8",
        note="inner heads not stated; 3 divides 6",
    ),
    "tnt_s_m4_patch16_224": Variant(
        {**_S, "inner_dim": 96, "inner_stride": 8}, "Table 8", note="inner heads not stated; 4"
    ),
}


def _cfg(variant: Variant) -> dict[str, Any]:
    side = variant.args.get("img_size", 224)
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, side, side),
        "pool_size": None,
        "crop_pct": variant.crop_pct,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        # Not the ImageNet statistics: the official weights were trained with 0.5 everywhere.
        "mean": IMAGENET_INCEPTION_MEAN,
        "std": IMAGENET_INCEPTION_STD,
        "first_conv": "pixel_embed.proj",
        "classifier": "head",
        "paper_ids": "arXiv:2103.00112",
        "paper_name": "Transformer in Transformer",
        **({"hf_hub_id": f"timm/{variant.hub}", "license": "apache-2.0"} if variant.hub else {}),
    }


def registered_name(name: str) -> str:
    """The name in timm's registry: timm keeps its own names, ours get a prefix there."""
    return f"effkit_{name}" if VARIANTS[name].hub else name


_cfgs: Any = {registered_name(name): _cfg(variant) for name, variant in VARIANTS.items()} | {
    name: pyramid_cfg(variant) for name, variant in PYRAMIDS.items()
}
default_cfgs = generate_default_cfgs(_cfgs)


def _dense(args: dict[str, Any]) -> tuple[dict[str, Any], int | None]:
    """Arguments without timm's ``output_stride``, and that; who asks for a stride shows pictures of any size."""
    stride = args.pop("output_stride", None)
    if stride is None:
        return args, None
    if not args.get("features_only"):
        raise UserError(f"output_stride={stride!r} is of feature maps: give features_only=True with it")
    return {"dynamic_img_size": True, **args}, stride


def _strided(features: Any, output_stride: int, step: int) -> Any:
    from tnt_vit.layers.strides import with_stride

    return with_stride(features, output_stride, step)


def _entry_point(name: str) -> Callable[..., TNT]:
    public = registered_name(name)

    def build(pretrained: bool = False, **kwargs: Any) -> TNT:
        from tnt_vit.checkpoints.weights import adapt_state
        from tnt_vit.model import TNT

        kwargs.pop("cache_dir", None)
        args, stride = _dense({**VARIANTS[name].args, **kwargs})
        out_indices = args.pop("out_indices", 3)
        model: Any = build_model_with_cfg(
            TNT,
            public,
            pretrained,
            pretrained_filter_fn=adapt_state,
            feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
            **args,
        )
        return model if stride is None else _strided(model, stride, max(model.model.patch_size))

    build.__doc__ = f"TNT as in {VARIANTS[name].table or 'no table of the paper'}: {VARIANTS[name].args}."
    return build


def _pyramid_entry_point(name: str) -> Callable[..., PyramidTNT]:
    def build(pretrained: bool = False, **kwargs: Any) -> PyramidTNT:
        from tnt_vit.checkpoints.pyramid_weights import adapt_pyramid
        from tnt_vit.pyramid import PyramidTNT

        kwargs.pop("cache_dir", None)
        args, stride = _dense({**PYRAMIDS[name].args, **kwargs})
        out_indices = args.pop("out_indices", tuple(range(len(args["depths"]))))
        model: Any = build_model_with_cfg(
            PyramidTNT,
            name,
            pretrained,
            pretrained_filter_fn=adapt_pyramid,
            feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
            **args,
        )
        return model if stride is None else _strided(model, stride, model.model.size_step)

    build.__doc__ = f"PyramidTNT, {PYRAMIDS[name].official} of the official code: {PYRAMIDS[name].args}."
    return build


_ENTRY_POINTS: dict[str, Callable[..., Any]] = {
    **{registered_name(name): _entry_point(name) for name in VARIANTS},
    **{name: _pyramid_entry_point(name) for name in PYRAMIDS},
}
for _public, _build in _ENTRY_POINTS.items():
    _build.__name__ = _build.__qualname__ = _public
    _build.__module__ = __name__
    globals()[_public] = _build
    __all__ += [_public]  # timm reads a module's __all__ to list its models
    register_model(_build)


def full_name(name: str) -> str:
    """A variant's whole name: ``tnt_s`` is short for ``tnt_s_patch16_224``. Whether there is one is not checked."""
    return name if name in VARIANTS or name in PYRAMIDS else f"{name}_patch16_224"


def list_models() -> list[str]:
    """Names that :func:`create_model` knows."""
    return [*VARIANTS, *PYRAMIDS]


def create_model(
    name: str,
    pretrained: bool | str | os.PathLike[str] = False,
    *,
    ema: bool | Literal["auto"] = "auto",
    **overrides: Any,
) -> TNT | PyramidTNT:
    """Build a TNT or a PyramidTNT by name.

    Args:
        name: One of :func:`list_models`; ``tnt_s`` is short for ``tnt_s_patch16_224``.
        pretrained: ``False``, the path of a checkpoint, or ``True`` for the published weights through timm's hub entry
            (downloads when they are not cached).
        ema: Of a checkpoint with averaged weights beside others: ``"auto"`` takes the averaged ones, as timm's loader
            does; true insists on them, false on the others.
        **overrides: Arguments of :class:`~tnt_vit.model.TNT` or :class:`~tnt_vit.pyramid.PyramidTNT`; with a
            checkpoint, another ``num_classes`` keeps the classifier fresh.

    Returns:
        The model, in training mode if fresh, in evaluation mode if it has weights.

    Raises:
        ValueError: If the name is unknown, there are no published weights, or the checkpoint does not fit.

    Example:
        >>> create_model("tnt_ti_patch16_224", num_classes=10).num_classes
        10
    """
    full = full_name(name)
    if full not in list_models():
        choose("name", name, list_models())
    build = _ENTRY_POINTS[full if full in PYRAMIDS else registered_name(full)]
    if pretrained is False or pretrained is None:
        return build(**overrides)
    if pretrained is True:
        if full in PYRAMIDS or not VARIANTS[full].hub:
            having = [n for n, v in VARIANTS.items() if v.hub]
            raise UserError(
                f"there are no published weights for {full}; give a path, or use one of {', '.join(having)}"
            )
        try:
            return build(pretrained=True, **overrides).eval()
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"the published weights of {full} (timm/{VARIANTS[full].hub}) cannot be had: "
                f"{str(error).splitlines()[0]}; "
                "download them where there is a network and give pretrained=PATH"
            ) from error
    from tnt_vit.checkpoints.weights import load_checkpoint

    model = build(**overrides)
    load_checkpoint(model, pretrained, strict_head="num_classes" not in overrides, ema=ema)
    return model.eval()
