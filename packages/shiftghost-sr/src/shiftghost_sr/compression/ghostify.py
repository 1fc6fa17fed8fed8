"""From a trained dense network to a ghost network that keeps the weights of what it still computes."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from effkit.arguments import check_arguments
from effkit.errors import UserError, choose
from shiftghost_sr.compression.conversion.report import ConversionReport, LayerReport
from shiftghost_sr.compression.conversion.selecting import SELECT, SOURCES, match, select_filters
from shiftghost_sr.compression.conversion.targets import body_of_ours, choose_targets, producers
from shiftghost_sr.layers.config import GhostConfig
from shiftghost_sr.layers.ghost_conv import GhostConv2d
from shiftghost_sr.models.foreign import foreign_of, ghost_like, replace_module
from shiftghost_sr.models.zoo import identity_of

__all__ = ["ghostify"]


def ghostify(
    model: nn.Module,
    ghost_ratio: float = 0.5,
    *,
    targets: Iterable[str] | None = None,
    select: str = "kmeans",
    source: str = "cluster",
    use_previous: bool = True,
    seed: int = 0,
    channels: int | None = None,
    **ghost: Any,
) -> tuple[nn.Module, ConversionReport]:
    """Make the convolutions of a body ghost convolutions, with the filters nearest to the centres of k-means clusters.

    Maps stay at their channels (order ``index``), so that neighbours and residual sums keep their meaning. The result
    is worse than the dense network before it has been finetuned; this is where finetuning starts from.

    Args:
        model: Dense; stays as it is. One of ours, or any network of convolutions.
        ghost_ratio: Share of each layer's channels that is no longer computed, in [0, 1).
        targets: Names of convolutions; if not given, those of the body.
        select: ``kmeans``, ``kmedoids``, ``l2``, ``random`` or ``first``.
        source: What a ghost is taken from: ``cluster`` (the filter of its own cluster), ``slot`` (the k-th of the
            k-th), or ``match`` (filter and direction that are nearest).
        use_previous: Whether a layer's filters are compared as they act on the maps that the layer before it still
            computes, the weights of its ghosts added to those of their sources.
        seed: Of the clustering.
        channels: Of the network's pictures, where it does not say it.
        **ghost: Other fields of :class:`~shiftghost_sr.layers.config.GhostConfig`.

    Returns:
        The ghost network, in the same mode, and what was done.

    Raises:
        UserError: If a value is not allowed, the network has ghosts already, or has no layer that can have any.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    check_arguments(ghostify, {"use_previous": use_previous, "seed": seed})
    choose("select", select, SELECT)
    choose("source", source, SOURCES)
    if any(isinstance(m, GhostConv2d) for m in model.modules()):
        raise UserError("model has ghosts already; convert the dense network")
    config = GhostConfig(**{"order": "index", "ghost_ratio": ghost_ratio, **ghost})
    if config.order != "index" and select != "first":
        raise UserError(f"order={config.order!r} would mix up the channels of trained neighbours; use 'index'")
    count = channels if channels is not None else getattr(model, "channels", None)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise UserError("channels of the network's pictures are not known, give channels=")
    made = copy.deepcopy(model).eval()
    names, left, traced = choose_targets(made, targets, config, count)
    before = producers(traced) if traced is not None and use_previous else {}
    size = sum(p.numel() for p in made.parameters())
    layers = []
    for name in names:
        conv = made.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        earlier = before.get(name)
        maker = made.get_submodule(earlier) if earlier in names else None
        new, report = _convert(name, conv, config, select, source, seed, maker)
        replace_module(made, name, new)
        layers.append(report)
    logits = {id(p) for n, p in made.named_parameters() if n.endswith("shift.logits")}
    now = sum(p.numel() for p in made.parameters() if id(p) not in logits)
    _remember(made, config, names)
    made.train(model.training)
    return made, ConversionReport(layers, left, (size, now), select, source, seed)


def _features(conv: nn.Conv2d, maker: nn.Module | None) -> np.ndarray:
    """Filters as rows; those that read a ghost network's maps, as they act on the computed ones."""
    weight = conv.weight.detach().double().cpu()
    if isinstance(maker, GhostConv2d) and conv.groups == 1 and maker.total_channels == weight.shape[1]:
        kept = weight[:, maker.intrinsic.cpu()].clone()
        kept.index_add_(1, maker.source.cpu(), weight[:, maker.ghosts.cpu()])
        weight = kept
    return weight.flatten(1).numpy()


def _convert(
    name: str, conv: nn.Conv2d, config: GhostConfig, select: str, source: str, seed: int, maker: nn.Module | None
) -> tuple[nn.Module, LayerReport]:
    new = ghost_like(conv, config)
    n = new.out_channels
    chosen = select_filters(_features(conv, maker), n, select, source, seed, conv.groups)
    places, direction, error = chosen.source, (0, 0), chosen.error
    if new.shift is not None and new.shift.learned:
        # Undecided: copies, until training finds better; ties go to no move.
        new.shift.reset_parameters("zeros")
    if source == "match" and new.shift is not None:
        weight = conv.weight.detach().double().cpu().numpy()
        places, direction, error = match(weight, chosen.intrinsic, chosen.ghosts, new.shift.directions, conv.groups)
        new.shift.set_directions([direction] * len(new.shift.logits))
    new.set_indices(chosen.intrinsic, chosen.ghosts, places)
    with torch.no_grad():
        new.weight.copy_(conv.weight[chosen.intrinsic])
        if conv.bias is not None and new.bias is not None:
            new.bias.copy_(conv.bias[chosen.intrinsic])
    new.weight.requires_grad_(conv.weight.requires_grad)
    sizes = Counter(Counter([*range(n), *places]).values())
    return new, LayerReport(name, conv.out_channels, n, error, dict(sizes), direction)


def _remember(model: nn.Module, config: GhostConfig, names: list[str]) -> None:
    """Let the network say what it is now, so that a file can."""
    identity, foreign = identity_of(model), foreign_of(model)
    if identity is not None:
        body = body_of_ours(identity)
        model.identity = dataclasses.replace(identity, ghost=config) if body == set(names) else None  # type: ignore[assignment]
    elif foreign is not None:
        ghosts = {}
        for name in names:
            layer = model.get_submodule(name)
            assert isinstance(layer, GhostConv2d)
            ghosts[name] = (layer.total_channels, config)
        model.foreign = dataclasses.replace(foreign, ghosts=ghosts)  # type: ignore[assignment]
