"""Networks by name: those of the paper's CIFAR tables, the small one for digits, and every model of timm."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from effkit.arguments import foreign
from effkit.errors import UserError, choose, nearest
from kd_autoaug.networks.cifar_resnet import CifarResNet
from kd_autoaug.networks.digits_cnn import DigitsCNN
from kd_autoaug.networks.pyramidnet import PyramidNet
from kd_autoaug.networks.shake_resnet import ShakeResNet
from kd_autoaug.networks.wide_resnet import WideResNet

__all__ = ["NETWORKS", "create_network"]

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "digits_cnn": DigitsCNN,
    "wrn_40_2": partial(WideResNet, depth=40, width=2),
    "wrn_28_10": partial(WideResNet, depth=28, width=10),
    "wrn_28_10_fastaa": partial(WideResNet, depth=28, width=10, fastaa=True),
    "shake_shake_26_2x32d": partial(ShakeResNet, depth=26, base=32),
    "shake_shake_26_2x96d": partial(ShakeResNet, depth=26, base=96),
    "shake_shake_26_2x112d": partial(ShakeResNet, depth=26, base=112),
    "pyramidnet_272_a200": partial(PyramidNet, depth=272, alpha=200),
    "resnet20_cifar": partial(CifarResNet, depth=20),
    "resnet32_cifar": partial(CifarResNet, depth=32),
    "resnet44_cifar": partial(CifarResNet, depth=44),
    "resnet56_cifar": partial(CifarResNet, depth=56),
}
"""Our own networks by name."""


def create_network(
    name: str, num_classes: int, in_chans: int = 3, image_size: int | None = None, **options: Any
) -> nn.Module:
    """Build a network.

    Args:
        name: One of :data:`NETWORKS`, or a model of timm.
        num_classes: Number of classes.
        in_chans: Channels of the pictures.
        image_size: Side of the pictures in pixels; ``None``: as the network has it. Told to networks that are built for
            one size, such as vision transformers.
        **options: Further arguments of the network, such as ``dropout`` of a wide ResNet, or ``drop_path_rate`` or
            ``pretrained=True`` of a timm model.

    Returns:
        From ``(B, in_chans, H, W)`` to logits ``(B, num_classes)``.

    Raises:
        UserError: If the name or an option is not known, or a number is out of range.
    """
    for field, value in (("num_classes", num_classes), ("in_chans", in_chans), ("image_size", image_size)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise UserError(f"{field}={value!r} must be a whole number of at least 1")
    if not isinstance(name, str):
        raise UserError(f"model.name={name!r} must be text")
    if name not in NETWORKS:
        return _timm_network(name, num_classes, in_chans, image_size, options)
    build = NETWORKS[name]
    fixed = build.keywords if isinstance(build, partial) else {}
    taken = {*fixed, "num_classes", "in_chans"}
    allowed = [p for p in inspect.signature(build).parameters if p not in taken]
    for option in options:
        choose(f"option of {name}", option, allowed)
    if image_size is not None and "image_size" in allowed:
        options = {"image_size": image_size, **options}
    return build(num_classes=num_classes, in_chans=in_chans, **options)


def _timm_network(
    name: str, num_classes: int, in_chans: int, image_size: int | None, options: dict[str, Any]
) -> nn.Module:
    import timm

    architecture = name.removeprefix("timm/").split(".")[0]
    if not timm.is_model(architecture):
        like = nearest(name, [*NETWORKS, *timm.list_models()])
        hint = f"; did you mean {like!r}?" if like is not None else ""
        raise UserError(f"model.name={name!r} is neither a model of timm nor one of {', '.join(NETWORKS)}{hint}")
    config = timm.models.get_pretrained_cfg(architecture)
    if image_size is not None and config is not None and config.fixed_input_size:
        options = {"img_size": image_size, **options}
    with foreign(f"model.name={name!r} of timm cannot be built with {options}"):
        return timm.create_model(name.removeprefix("timm/"), num_classes=num_classes, in_chans=in_chans, **options)
