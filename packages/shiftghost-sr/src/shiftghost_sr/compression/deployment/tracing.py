"""A network as a graph with the shapes of its values."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from shiftghost_sr.layers.ghost_conv import GhostConv2d
from shiftghost_sr.layers.shift import LearnableShift2d

__all__ = ["NotTraceable", "channels_of", "trace"]


class NotTraceable(Exception):
    """A network whose forward pass depends on values or sizes; says why."""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
        return isinstance(m, GhostConv2d | LearnableShift2d) or super().is_leaf_module(m, qualified_name)


def trace(model: nn.Module, channels: int, size: int = 16) -> fx.GraphModule:
    """Trace a network in evaluation mode and run it once on a small picture of zeros, for its values' shapes.

    Args:
        model: On the CPU or the meta device.
        channels: Of its input.
        size: Side of the picture.

    Raises:
        NotTraceable: If its forward pass cannot be written as one graph.
    """
    # A copy: some networks keep what they are given, and would be left with pieces of a graph inside.
    model = copy.deepcopy(model)
    try:
        graph = _Tracer().trace(model)
        for node in graph.nodes:
            if isinstance(node.type, str):  # an annotation that was not evaluated: torch 2.11 cannot pickle it
                node.type = None
        traced = fx.GraphModule(model, graph)
    except Exception as error:  # whatever a network's own code raises on a proxy
        raise NotTraceable(f"{type(model).__name__} is no one graph ({_line(error)})") from error
    try:
        with torch.no_grad():
            first = next(model.parameters())
            ShapeProp(traced).propagate(torch.zeros(1, channels, size, size, dtype=first.dtype, device=first.device))
    except Exception as error:
        raise NotTraceable(f"{type(model).__name__} does not run on {size} x {size} pixels ({_line(error)})") from error
    _check(traced, model, channels, size)
    return traced


def _check(traced: fx.GraphModule, model: nn.Module, channels: int, size: int) -> None:
    """A graph that computes something else, of a network that changes itself while it runs, is none."""
    first = next(model.parameters())
    if first.is_meta:
        return
    rows = torch.linspace(0, 1, channels * size * size, dtype=torch.float64).sin().view(1, channels, size, size)
    x = rows.to(first.device, first.dtype)
    with torch.no_grad():
        ours, theirs = traced(x.clone()), model(x.clone())
    same = isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor) and ours.shape == theirs.shape
    if not same or not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise NotTraceable(f"{type(model).__name__} is no one graph (it changes itself while it runs)")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def channels_of(node: fx.Node) -> int | None:
    """Channels of a value that is a batch of maps; ``None`` for anything else."""
    meta: Any = node.meta.get("tensor_meta")
    shape = getattr(meta, "shape", None)
    return int(shape[1]) if shape is not None and len(shape) == 4 else None
