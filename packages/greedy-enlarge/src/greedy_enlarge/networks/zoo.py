"""The released networks of the paper in timm's registry, without weights: none were ever published.

``s_ghostnet_b1`` is the truly stage-wise network of the release's evaluation script (48 % of its MACs are in the last
stage), ``s_ghostnet_b1_uniform`` the one its README calls b1, a uniformly scaled GhostNet. ``s_ghostnet_b4`` is
the README's, ``s_ghostnet_b4_train`` that of its training command. Which of them gave the paper's figures is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from greedy_enlarge.families.bases import BASES

# This module is imported as soon as timm is, which may be in the middle of our own imports.
if TYPE_CHECKING:
    from torch import nn

__all__ = ["MODELS", "default_cfgs"]

MODELS = ("s_ghostnet_b1", "s_ghostnet_b1_uniform", "s_ghostnet_b4", "s_ghostnet_b4_train")


def _cfg(name: str) -> dict[str, Any]:
    side = BASES[name]["resolution"]
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, side, side),
        "pool_size": (-(-side // 32), -(-side // 32)),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "conv_stem",
        "classifier": "classifier",
        "paper_ids": "arXiv:2108.00177",
        "paper_name": "Greedy Network Enlarging",
    }


default_cfgs = generate_default_cfgs({name: _cfg(name) for name in MODELS})


def _entry_point(name: str) -> Callable[..., nn.Module]:
    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        from greedy_enlarge.networks.ghostnet import GhostNet
        from greedy_enlarge.spec import ArchSpec

        kwargs.pop("cache_dir", None)
        out_indices = kwargs.pop("out_indices", (0, 1, 2, 3, 4))
        spec = ArchSpec(**BASES[name])
        model = build_model_with_cfg(
            GhostNet,
            name,
            pretrained,
            feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
            **{"depths": spec.depths, "widths": spec.widths, **kwargs},
        )
        if not kwargs.get("features_only"):
            classes, chans = kwargs.get("num_classes", 1000), kwargs.get("in_chans", 3)
            if classes:
                model.arch_spec = spec.replace(classes=classes, in_chans=chans)  # type: ignore[assignment]
        return model

    build.__name__ = build.__qualname__ = name
    build.__module__ = __name__
    build.__doc__ = f"S-GhostNet of depths {BASES[name]['depths']} and widths {BASES[name]['widths']}."
    return build


for _name in MODELS:
    globals()[_name] = _entry_point(_name)
    __all__ += [_name]  # timm reads a module's __all__ to list its models
    register_model(globals()[_name])
