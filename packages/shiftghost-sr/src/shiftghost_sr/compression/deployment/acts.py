"""Activations that commute with moving maps: zero stays zero, and every channel is treated alike."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from shiftghost_sr.compression.deployment.layout import Channel

__all__ = ["activation_of", "is_activation", "slopes_allow"]

_MODULES = (nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.Tanh, nn.Hardswish, nn.PReLU)
_FUNCTIONS: dict[Any, str] = {
    F.relu: "ReLU", torch.relu: "ReLU", F.leaky_relu: "LeakyReLU", F.gelu: "GELU", F.silu: "SiLU", F.mish: "Mish",
    F.elu: "ELU", torch.tanh: "Tanh", F.hardswish: "Hardswish", F.relu6: "ReLU6", torch.relu_: "ReLU",
}  # fmt: skip
_METHODS = {"relu": "ReLU", "relu_": "ReLU", "tanh": "Tanh", "tanh_": "Tanh"}
_NAMED = {"negative_slope": "negative_slope", "alpha": "alpha", "approximate": "approximate"}


def _plain(module: nn.Module) -> nn.Module:
    """The same out of place."""
    if isinstance(module, nn.ReLU):
        return nn.ReLU()
    if isinstance(module, nn.LeakyReLU):
        return nn.LeakyReLU(module.negative_slope)
    if getattr(module, "inplace", False):
        made = type(module)() if not isinstance(module, nn.ELU) else nn.ELU(module.alpha)
        return made
    return module


def is_activation(module: nn.Module) -> bool:
    """Whether a module is an activation that treats every number, or every channel, alike."""
    return type(module) in _MODULES


def activation_of(node: fx.Node, module: nn.Module | None) -> tuple[nn.Module, bool] | None:
    """What a node applies element by element, and whether it changes its input; ``None`` if it is nothing such.

    Args:
        node: Of the traced graph.
        module: What it calls, for ``call_module``.
    """
    if module is not None:
        if type(module) not in _MODULES:
            return None
        return _plain(module), bool(getattr(module, "inplace", False))
    name = _FUNCTIONS.get(node.target) if node.op == "call_function" else _METHODS.get(str(node.target))
    if node.op not in ("call_function", "call_method") or name is None:
        return None
    kwargs = dict(node.kwargs)
    inplace = bool(kwargs.pop("inplace", False)) or str(getattr(node.target, "__name__", node.target)).endswith("_")
    rest = list(node.args[1:])
    if name == "LeakyReLU" and rest:
        kwargs["negative_slope"] = rest.pop(0)
    if rest or any(key not in _NAMED or isinstance(value, fx.Node) for key, value in kwargs.items()):
        return None
    return getattr(nn, name)(**kwargs), inplace


def slopes_allow(act: nn.Module, channels: Sequence[Channel], sizes: dict[int, int]) -> dict[int, nn.Module] | None:
    """An activation with learnt slopes as one on each tensor; ``None`` where a ghost's slope is not its source's.

    Args:
        act: Any of :func:`activation_of`.
        channels: What it is applied to.
        sizes: Channels of each tensor.
    """
    bases = list(dict.fromkeys(c.base for c in channels))
    if not isinstance(act, nn.PReLU) or act.weight.numel() == 1:
        return dict.fromkeys(bases, act)
    slopes: dict[tuple[int, int], Tensor] = {}
    for place, c in enumerate(channels):
        own = act.weight[place]
        if not torch.equal(slopes.setdefault((c.base, c.source), own), own):
            return None
    found: dict[int, nn.Module] = {}
    for base in bases:
        made = nn.PReLU(sizes[base]).to(act.weight)
        with torch.no_grad():
            for i in range(sizes[base]):
                made.weight[i] = slopes.get((base, i), act.weight.new_zeros(()))
        found[base] = made.requires_grad_(False)
    return found


ADDITIONS = (operator.add, operator.iadd, torch.add)
PRODUCTS = (operator.mul, operator.imul, torch.mul)
OUT_OF_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}  # fmt: skip
