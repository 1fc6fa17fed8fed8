"""Which convolutions of a network can become ghost convolutions, and why the others stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn

from effkit.errors import UserError, choose
from shiftghost_sr.compression.conversion.probing import around as running_order
from shiftghost_sr.compression.conversion.probing import unusable
from shiftghost_sr.compression.deployment.tracing import NotTraceable, trace
from shiftghost_sr.layers.config import GhostConfig, intrinsic_count
from shiftghost_sr.layers.ghost_conv import GhostConv2d
from shiftghost_sr.models.zoo import Identity, create_model, identity_of

__all__ = ["body_of_ours", "choose_targets", "producers"]

_FEWEST = 8  # channels; with fewer there is nothing to choose from


def _unfit(conv: nn.Module, config: GhostConfig) -> str:
    """Why a layer cannot be one; empty if it can."""
    if isinstance(conv, GhostConv2d):
        return "it has ghosts already"
    if type(conv) is not nn.Conv2d:
        return f"it is a {type(conv).__name__}"
    if conv.kernel_size[0] != conv.kernel_size[1] or conv.kernel_size[0] % 2 == 0:
        return f"its kernel is {conv.kernel_size[0]} x {conv.kernel_size[1]}"
    if conv.stride[0] != conv.stride[1] or conv.dilation != (1, 1):
        return "it strides unevenly or dilates"
    if conv.padding_mode != "zeros" or (isinstance(conv.padding, tuple) and conv.padding[0] != conv.padding[1]):
        return "it pads otherwise than with zeros alike on all sides"
    n = intrinsic_count(conv.out_channels, config.ghost_ratio)
    if n % conv.groups or n < 1:
        return f"{n} of {conv.out_channels} channels cannot be divided into its {conv.groups} groups"
    return ""


def body_of_ours(identity: Identity) -> set[str]:
    """Layers that a network of ours has ghosts in, by making it with ghosts, without memory."""
    with torch.device("meta"):
        twin = create_model(identity.name, identity.scale, "copy", **identity.size)
    return {name for name, m in twin.named_modules() if isinstance(m, GhostConv2d)}


def _conv_names(model: nn.Module) -> list[str]:
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return [name for name, m in model.named_modules() if isinstance(m, kinds)]


def _passes(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a node treats every number by itself, so that its input's channels are its output's."""
    if node.op == "call_module":
        name = type(modules[str(node.target)]).__module__
        return name.endswith(".activation") or isinstance(modules[str(node.target)], nn.Identity | nn.Dropout)
    return getattr(node.target, "__name__", str(node.target)) in ("relu", "leaky_relu", "gelu", "silu", "relu_", "mul")


def producers(traced: fx.GraphModule) -> dict[str, str]:
    """Convolution -> the convolution whose channels it reads, where only activations stand between."""
    modules, found = dict(traced.named_modules()), {}
    for node in traced.graph.nodes:
        if node.op != "call_module" or not isinstance(modules[str(node.target)], nn.Conv2d):
            continue
        source = node.args[0]
        while isinstance(source, fx.Node) and _passes(source, modules) and source.args:
            source = source.args[0]
        called = isinstance(source, fx.Node) and source.op == "call_module"
        if called and isinstance(modules[str(source.target)], nn.Conv2d):
            found[str(node.target)] = str(source.target)
    return found


def _by_graph(traced: fx.GraphModule, channels: int) -> dict[str, str]:
    """Layers that are no part of a body, with the reason: at the picture's ends, or around a change of size."""
    modules, reasons = dict(traced.named_modules()), {}
    side: Any = None
    for node in traced.graph.nodes:
        meta = node.meta.get("tensor_meta")
        shape: Any = getattr(meta, "shape", None)
        if node.op == "placeholder":
            side = shape[-1]
        if node.op != "call_module" or not isinstance(modules[str(node.target)], nn.Conv2d | nn.ConvTranspose2d):
            continue
        name, conv = str(node.target), modules[str(node.target)]
        if conv.in_channels == channels:
            reasons[name] = "it reads the picture"
        elif shape is not None and shape[-1] > side:
            reasons[name] = "it stands behind the upsampler"
        ahead = list(node.users)
        while ahead:
            user = ahead.pop()
            if user.op == "output":
                reasons.setdefault(name, "it writes the picture")
            elif _passes(user, modules):
                ahead += list(user.users)
            else:
                bigger = getattr(user.meta.get("tensor_meta"), "shape", None)
                if bigger is not None and shape is not None and len(bigger) == 4 and bigger[-1] > shape[-1]:
                    reasons.setdefault(name, "it belongs to the upsampler")
    return reasons


def choose_targets(
    model: nn.Module, targets: Iterable[str] | None, config: GhostConfig, channels: int
) -> tuple[list[str], dict[str, str], fx.GraphModule | None]:
    """Which layers become ghost convolutions.

    Args:
        model: The network.
        targets: Names; ``None``: those of our networks' bodies, or all of another's body that can.
        config: Kind of ghosts.
        channels: Of its pictures.

    Returns:
        Names in the network's order; the convolutions that stay, with the reason; its graph, where there is one.

    Raises:
        UserError: If a name is no convolution that can become one, or none is left.
    """
    names = _conv_names(model)
    try:
        traced: fx.GraphModule | None = trace(model, channels)
    except NotTraceable:
        traced = None
    if targets is not None:
        if isinstance(targets, str):
            raise UserError(f"targets={targets!r} must be a list of names")
        wanted = [choose("targets", name, names) for name in targets]
        for name in wanted:
            if reason := _unfit(model.get_submodule(name), config):
                raise UserError(f"targets: {name} cannot have ghosts, {reason}")
        for name, reason in unusable(model, wanted, channels).items():
            raise UserError(f"targets: {name} cannot have ghosts, {reason}")
        return [n for n in names if n in wanted], {n: "it was not named" for n in names if n not in wanted}, traced
    identity = identity_of(model)
    ours = None if identity is None else body_of_ours(identity)
    left: dict[str, str] = {}
    around = {}
    if ours is None:
        around = running_order(model, channels) if traced is None else _by_graph(traced, channels)
    for name in names:
        conv = model.get_submodule(name)
        if ours is not None:
            reason = "" if name in ours else "it is no part of the body"
        elif isinstance(conv, nn.Conv2d) and conv.kernel_size == (1, 1):
            reason = "its kernel is 1 x 1"
        elif isinstance(conv, nn.Conv2d) and conv.out_channels < _FEWEST:
            reason = f"it has {conv.out_channels} channels only"
        else:
            reason = around.get(name, "")
        reason = reason or _unfit(conv, config)
        if reason:
            left[name] = reason
    left |= unusable(model, [n for n in names if n not in left], channels)
    chosen = [n for n in names if n not in left]
    if not chosen:
        counts = Counter(left.values())
        why = "; ".join(f"{reason} ({count})" for reason, count in counts.most_common()) or "there is none"
        raise UserError(f"no convolution of {type(model).__name__} can have ghosts: {why}")
    return chosen, left, traced
