"""Models in timm's registry: ``pvt_v1_*``, ``t2t_vit_*``, and ``aug_NAME`` for every NAME that can have paths.

Imported as soon as timm is. ``timm.create_model("aug_deit_small_patch16_224", aug_num_paths=2, num_classes=10)`` builds
timm's model (with its pretrained weights if asked for) and augments it: ``aug`` is a preset or a config, ``aug_FIELD``
a field of :class:`~augshortcut.config.AugmentConfig`.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, get_pretrained_cfg, register_model

from augshortcut.config import AugmentConfig, resolve_config
from effkit.errors import choose

if TYPE_CHECKING:
    from torch import nn

__all__ = ["OFFICIAL", "OWN", "create_model", "list_models", "supported_models"]

_log = logging.getLogger(__name__)

_FILES = (
    "vision_transformer",
    "deit",
    "vision_transformer_hybrid",
    "vision_transformer_relpos",
    "eva",
    "beit",
    "swin_transformer",
    "pvt_v2",
    "twins",
    "cait",
    "convit",
    "volo",
    "xcit",
    "tnt",
    "crossvit",
    "nest",
    "davit",
    "gcvit",
)
# Parallel blocks, which have no shortcut of each sub-layer; and norms after them, which need aug_tap="input" and so no
# name of their own: augment(timm.create_model(...), AugmentConfig(tap="input")) takes those.
_WITHOUT = ("*_xp_*", "*_18x2_*", "vit_pwee_*", "vit_dpwee_*", "*_rpn_*", "eva02_enormous_*")


def _own_cfg(side: int = 224) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, side, side),
        "pool_size": None,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "classifier": "head",
    }


OWN: dict[str, dict[str, Any]] = {
    "pvt_v1_small": {"depths": (3, 4, 6, 3)},
    "pvt_v1_medium": {"depths": (3, 4, 18, 3)},
    "t2t_vit_14": {"depth": 14, "dim": 384, "num_heads": 6},
    "t2t_vit_19": {"depth": 19, "dim": 448, "num_heads": 7},
    "t2t_vit_24": {"depth": 24, "dim": 512, "num_heads": 8},
}
"""Models of ours that timm does not have, for Table 2: name -> arguments."""

_FIRST = {"pvt": ("stages.0.patch", "head"), "t2t": (("narrow.0.kqv", "narrow.0.norm1"), "head")}

# The official code's entry points: base, and what it adds there.
OFFICIAL: dict[str, tuple[str, dict[str, Any]]] = {
    "augvit_small": ("deit_small_patch16_224", {"num_paths": 0}),
    "augvit_small_linear": ("deit_small_patch16_224", {"num_paths": 1, "projection": "dense"}),
    "augvit_small_linear2": ("deit_small_patch16_224", {"num_paths": 2, "projection": "dense"}),
    "augvit_small_circulant2": ("deit_small_patch16_224", {"num_paths": 2}),
    "augvit_base_circulant2": ("deit_base_patch16_224", {"num_paths": 2}),
}


@functools.cache
def supported_models() -> tuple[str, ...]:
    """Names of the models that can have paths: timm's, and ours."""
    found = {name for file in _FILES for name in timm.list_models(module=file)}
    own = set(OWN)
    return tuple(sorted(own | {n for n in found if not any(fnmatchcase(n, pattern) for pattern in _WITHOUT)}))


def list_models() -> list[str]:
    """Names that :func:`create_model` knows: the official code's, and ``aug_NAME``."""
    return [*OFFICIAL, *(f"aug_{name}" for name in supported_models())]


def split_arguments(arguments: dict[str, Any]) -> AugmentConfig:
    """Take ``aug`` and ``aug_FIELD`` out of a model's arguments.

    Raises:
        UserError: If a field or a value is not known.
    """
    fields = {field.name for field in dataclasses.fields(AugmentConfig)}
    given = {key.removeprefix("aug_"): arguments.pop(key) for key in list(arguments) if key.startswith("aug_")}
    for key in given:
        choose("argument", f"aug_{key}", [f"aug_{field}" for field in sorted(fields)])
    base = arguments.pop("aug", None) or "paper"
    if not given:
        return resolve_config(base)
    if isinstance(base, str):
        return resolve_config({"preset": base, **given})
    return AugmentConfig.from_dict({**resolve_config(base).to_dict(), **given})


def _augmented(base: str, name: str) -> Callable[..., nn.Module]:
    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        from augshortcut.injection.augment import augment

        config = split_arguments(kwargs)
        # What timm hands to every entry point; a pretrained_cfg given by the user is the base's.
        own = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
        kwargs = {key: value for key, value in kwargs.items() if key not in own or value is not None}
        if pretrained and config.num_paths and config.gate == "none":
            _log.info(
                f"{name}: paths start at random beside pretrained weights; aug='retrofit' changes nothing at first"
            )
        return augment(timm.create_model(base, pretrained=pretrained, **kwargs), config)

    return _named(build, name, f"``{base}`` with augmented shortcuts; see this module.")


def _own(name: str) -> Callable[..., nn.Module]:
    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        from augshortcut.models.pvt_v1 import PvtV1
        from augshortcut.models.t2t_vit import T2TViT

        kwargs.pop("cache_dir", None)
        network: Any = PvtV1 if name.startswith("pvt") else T2TViT
        features = {"out_indices": 4 if name.startswith("pvt") else 3, "feature_cls": "getter"}
        return build_model_with_cfg(network, name, pretrained, feature_cfg=features, **{**OWN[name], **kwargs})

    return _named(build, name, f"``{name}``: {OWN[name]}.")


def _named(build: Callable[..., Any], name: str, doc: str) -> Callable[..., Any]:
    build.__name__ = build.__qualname__ = name
    build.__module__ = __name__
    build.__doc__ = doc
    return build


def _cfg(base: str) -> dict[str, Any]:
    """The base's, without its weights."""
    known = get_pretrained_cfg(base)
    values = {} if known is None else {k: v for k, v in dataclasses.asdict(known).items() if v is not None}
    for key in ("file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "architecture", "tag", "custom_load"):
        values.pop(key, None)
    return {**values, "url": ""}


_own_cfgs = {n: {**_own_cfg(), "first_conv": _FIRST[n[:3]][0], "classifier": _FIRST[n[:3]][1]} for n in OWN}
default_cfgs = generate_default_cfgs(
    {
        **_own_cfgs,
        **{f"aug_{name}": _own_cfgs.get(name) or _cfg(name) for name in supported_models()},
    }
)


def _register(build: Callable[..., Any]) -> None:
    globals()[build.__name__] = build
    __all__.append(build.__name__)  # timm reads a module's __all__ to list its models
    register_model(build)


for _name in OWN:
    _register(_own(_name))
for _name in supported_models():
    _register(_augmented(_name, f"aug_{_name}"))


def create_model(name: str, pretrained: bool = False, **overrides: Any) -> nn.Module:
    """Build a model by name.

    Args:
        name: One of :func:`list_models`, any name of timm's whose blocks are known, or a base of :data:`OWN`.
            Names of the official code (``augvit_small_circulant2``) come with its preset.
        pretrained: Whether the base gets timm's weights (downloads when they are not cached).
        **overrides: ``aug``, ``aug_FIELD``, and arguments of the base.

    Raises:
        UserError: If the name or an argument is not known.

    Example:
        >>> sum(p.numel() for p in create_model("augvit_small_circulant2").parameters())
        22142824
    """
    if name in OFFICIAL:
        from augshortcut.config import preset
        from augshortcut.injection.augment import augment

        base, values = OFFICIAL[name]
        given = {key.removeprefix("aug_"): overrides.pop(key) for key in list(overrides) if key.startswith("aug_")}
        config = preset("official", **{**values, **given})
        return augment(timm.create_model(base, pretrained=pretrained, **overrides), config)
    if not timm.is_model(name):
        choose("name", name, [*list_models(), *OWN])
    if name.startswith("aug_"):
        return timm.create_model(name, pretrained=pretrained, **overrides)
    given = {key: overrides.pop(key) for key in list(overrides) if key == "aug" or key.startswith("aug_")}
    model = timm.create_model(name, pretrained=pretrained, **overrides)
    if not given:
        return model
    from augshortcut.injection.augment import augment

    return augment(model, split_arguments(given))
