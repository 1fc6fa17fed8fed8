"""How far around a pixel a graph looks, side by side."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from effkit.errors import UserError
from shiftghost_sr.layers.ghost_conv import GhostConv2d
from shiftghost_sr.layers.shift import LearnableShift2d

__all__ = ["Halo", "reach_of"]

Halo = tuple[int, int, int, int]
"""Pixels of the network's input above, below, left and right."""

_POINTWISE_FUNCTIONS = {
    torch.cat, torch.concat, torch.add, torch.mul, torch.sub, torch.div, torch.sigmoid, torch.tanh, torch.relu,
    torch.split, torch.chunk, torch.clamp, operator.add, operator.iadd, operator.sub, operator.isub, operator.mul,
    operator.imul, operator.truediv, operator.itruediv, operator.neg, operator.pow, F.relu, F.leaky_relu, F.gelu,
    F.silu, F.mish, F.elu, F.hardswish, F.prelu,
}  # fmt: skip
_POINTWISE_METHODS = frozenset(
    ["add", "add_", "mul", "mul_", "sub", "div", "clamp", "chunk", "split", "contiguous", "relu", "clone"]
)


class _Reach(dict[int, list[int]]):
    """Pixels that a value looks around itself, on each grid it was made on: enlargement -> four numbers."""

    def grown(self, grid: int, by: Iterable[int]) -> _Reach:
        found = _Reach({g: list(v) for g, v in self.items()})
        found[grid] = [a + b for a, b in zip(found.get(grid, [0] * 4), by, strict=True)]
        return found

    @staticmethod
    def joined(several: Iterable[_Reach]) -> _Reach:
        found = _Reach()
        for one in several:
            for grid, sides in one.items():
                found[grid] = [max(a, b) for a, b in zip(found.get(grid, [0] * 4), sides, strict=True)]
        return found

    def on_input(self) -> Halo:
        """All of it in pixels of the input; a pixel of a larger grid lies inside one of the smaller."""
        sides = [0, 0, 0, 0]
        grids = sorted({1, *self}, reverse=True)
        for grid, smaller in zip(grids, [*grids[1:], 1], strict=True):
            here = [a + b for a, b in zip(sides, self.get(grid, [0] * 4), strict=True)]
            factor = grid // smaller
            sides = [-(-n // factor) for n in here]
        return (sides[0], sides[1], sides[2], sides[3])


def _refuse(node: fx.Node, module: nn.Module | None, why: str) -> UserError:
    what = type(module).__name__ if module is not None else getattr(node.target, "__name__", str(node.target))
    return UserError(f"how far this network looks is not known: {node.name} ({what}) {why}; give a tile that holds all")


def _of_module(node: fx.Node, module: nn.Module, reach: _Reach, grid: int) -> tuple[_Reach, int]:
    if isinstance(module, nn.Conv2d):
        if module.stride != (1, 1):
            raise _refuse(node, module, "changes the grid")
        spread = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        same = isinstance(module.padding, str)
        pads = [n // 2 for n in spread] if same else [int(p) for p in module.padding]
        if [2 * p for p in pads] != spread:
            raise _refuse(node, module, "does not keep the frame")
        sides = [pads[0], pads[0], pads[1], pads[1]]
        if isinstance(module, GhostConv2d):
            sides = [a + b for a, b in zip(sides, _moves(module), strict=True)]
        return reach.grown(grid, sides), grid
    if isinstance(module, LearnableShift2d):
        return reach.grown(grid, _furthest(module.chosen_directions())), grid
    if isinstance(module, nn.PixelShuffle):
        return reach, grid * module.upscale_factor
    if isinstance(module, nn.Upsample) and module.mode == "nearest" and module.scale_factor is not None:
        factor = module.scale_factor
        if isinstance(factor, int | float) and float(factor).is_integer():
            return reach, grid * int(factor)
    if type(module).__module__ == "torch.nn.modules.activation" or isinstance(module, nn.Identity | nn.Dropout):
        return reach, grid
    raise _refuse(node, module, "may look anywhere")


def _furthest(moves: Iterable[tuple[int, int]]) -> list[int]:
    listed = [(0, 0), *moves]
    rows, columns = [a for a, _ in listed], [b for _, b in listed]
    return [-min(rows), max(rows), -min(columns), max(columns)]


def _moves(module: GhostConv2d) -> list[int]:
    if module.depthwise is not None:
        return [1, 1, 1, 1]
    return _furthest(module.channel_map()[1])


def _of_function(node: fx.Node, reach: _Reach, grid: int) -> tuple[_Reach, int]:
    if node.target is operator.getitem and isinstance(node.args[1], int):
        return reach, grid
    pointwise = node.target in (_POINTWISE_FUNCTIONS if node.op == "call_function" else _POINTWISE_METHODS)
    if pointwise:
        return reach, grid
    if node.target in (F.interpolate, F.pixel_shuffle):
        factor: Any = node.kwargs.get("scale_factor", node.args[1] if node.target is F.pixel_shuffle else None)
        nearest = node.target is F.pixel_shuffle or node.kwargs.get("mode", "nearest") == "nearest"
        if nearest and isinstance(factor, int | float) and float(factor).is_integer():
            return reach, grid * int(factor)
    raise _refuse(node, None, "may look anywhere")


def reach_of(traced: fx.GraphModule) -> Halo:
    """Pixels of the input that an output pixel depends on, beyond the one it lies in.

    Args:
        traced: A network in evaluation mode.

    Raises:
        UserError: If it looks at the whole frame, or it cannot be told how far.
    """
    modules = dict(traced.named_modules())
    known: dict[fx.Node, tuple[_Reach, int]] = {}
    for node in traced.graph.nodes:
        inputs = [known[n] for n in node.all_input_nodes if n in known]
        if node.op == "placeholder":
            known[node] = (_Reach(), 1)
            continue
        if node.op in ("get_attr",) or not inputs:
            continue
        reach, grid = _Reach.joined(r for r, _ in inputs), inputs[0][1]
        if any(g != grid for _, g in inputs):
            raise _refuse(node, None, "joins values of different grids")
        if node.op == "output":
            return reach.on_input()
        if node.op == "call_module":
            known[node] = _of_module(node, modules[str(node.target)], reach, grid)
        else:
            known[node] = _of_function(node, reach, grid)
    raise AssertionError("a graph without output")
