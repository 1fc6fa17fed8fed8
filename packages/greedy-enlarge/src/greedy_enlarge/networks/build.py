"""From an :class:`~greedy_enlarge.spec.ArchSpec` to a network."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from effkit.errors import UserError, written
from greedy_enlarge.families import FAMILIES, family_of
from greedy_enlarge.families.mbconv import arch_string
from greedy_enlarge.spec import ArchSpec

__all__ = ["build", "spec_of"]


def build(
    spec: ArchSpec, *, drop_rate: float = 0.0, drop_path_rate: float = 0.0, device: Any = None, dtype: Any = None
) -> nn.Module:
    """Build a network; it knows what it is (:func:`spec_of`).

    Args:
        spec: The architecture.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth; the rate grows linearly with a block's index.
        device: As in torch; ``"meta"`` builds without memory.
        dtype: As in torch.

    Returns:
        A randomly initialised network from ``(B, in_chans, H, W)`` to ``(B, classes)``, in training mode.

    Raises:
        UserError: If the network is not one its family can be, or a rate is no share.

    Example:
        >>> from greedy_enlarge.families import base
        >>> sum(p.numel() for p in build(base("efficientnet_b0"), device="meta").parameters())
        5288548
    """
    family_of(spec)
    for name, rate in (("drop_rate", drop_rate), ("drop_path_rate", drop_path_rate)):
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
            raise UserError(f"{name}={written(rate)} must be a number in [0, 1)")
    shared = {"num_classes": spec.classes, "in_chans": spec.in_chans, "drop_rate": drop_rate}
    shared |= {"drop_path_rate": drop_path_rate, "device": device, "dtype": dtype}
    model: nn.Module = _BUILDERS[spec.family](spec, shared)
    model.arch_spec = spec  # type: ignore[assignment]
    return model


def spec_of(model: nn.Module) -> ArchSpec:
    """What :func:`build` built.

    Raises:
        UserError: If the network was not built here.
    """
    spec = getattr(model, "arch_spec", None)
    if not isinstance(spec, ArchSpec):
        raise UserError(f"this {type(model).__name__} does not say its architecture: make it with greedy_enlarge.build")
    return spec


def _mbconv(spec: ArchSpec, shared: dict[str, Any]) -> nn.Module:
    from timm.models._efficientnet_builder import decode_arch_def, round_channels
    from timm.models.efficientnet import EfficientNet

    family = FAMILIES[spec.family]
    rows = zip(family.blocks(spec), spec.depths, spec.widths, strict=True)
    return EfficientNet(
        block_args=decode_arch_def([[arch_string(*row)] for row in rows]),
        num_features=spec.head or family.head,
        stem_size=spec.stem or family.stem,
        fix_stem=True,
        round_chs_fn=partial(round_channels, multiplier=0.0),  # widths are taken as they are
        act_layer=nn.SiLU,
        **shared,
    )


def _ghost(spec: ArchSpec, shared: dict[str, Any]) -> nn.Module:
    from greedy_enlarge.networks.ghostnet import GhostNet

    return GhostNet(spec.depths, spec.widths, "large" if spec.family == "ghostnet_large" else "published", **shared)


def _resnet(spec: ArchSpec, shared: dict[str, Any]) -> nn.Module:
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet

    basic = spec.template == ("basic",)
    block: Any = BasicBlock if basic else Bottleneck  # timm's annotation says an instance
    return ResNet(block, spec.depths, channels=spec.widths if basic else tuple(w // 4 for w in spec.widths), **shared)


def _regnet(spec: ArchSpec, shared: dict[str, Any]) -> nn.Module:
    from greedy_enlarge.networks.regnet import StagedRegNet

    family = FAMILIES["regnet"]
    kind = family.blocks(spec)[0]
    return StagedRegNet(spec.depths, spec.widths, kind.group, kind.squeeze, spec.stem or family.stem, **shared)


_BUILDERS = {
    "efficientnet": _mbconv,
    "custom": _mbconv,
    "ghostnet": _ghost,
    "ghostnet_large": _ghost,
    "resnet": _resnet,
    "regnet": _regnet,
}
