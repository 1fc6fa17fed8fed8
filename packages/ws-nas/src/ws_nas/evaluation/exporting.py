"""A network as Python source with a file of weights beside it, which need nothing but torch."""

from __future__ import annotations

import io
import operator
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from effkit.atomic import atomic
from effkit.errors import UserError
from ws_nas.spaces.space import Layout

__all__ = ["export_files", "network_source"]

_FUNCTIONS: dict[Callable[..., Any], str] = {
    operator.add: "operator.add",
    operator.mul: "operator.mul",
    operator.getitem: "operator.getitem",
    getattr: "getattr",
    torch.cat: "torch.cat",
    functional.relu: "functional.relu",
    functional.avg_pool2d: "functional.avg_pool2d",
    functional.hardsigmoid: "functional.hardsigmoid",
    functional.hardswish: "functional.hardswish",
}

_HEAD = '''"""{title}

    network = load()
    logits = network(pictures)  # (B, {channels}, {side}, {side}) to (B, {classes})
"""

import operator
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional


class Network(nn.Module):
    def __init__(self):
        super().__init__()
{made}

    def forward(self, {argument}):
{steps}


def load(weights=None):
    """The network in eval mode, with the weights of the file beside this one."""
    path = Path(__file__).with_suffix(".pt") if weights is None else weights
    network = Network()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()
'''


def network_source(network: nn.Module, layout: Layout, title: str) -> tuple[str, dict[str, torch.Tensor]]:
    """Source of a network in eval mode, and the weights that its ``load`` expects.

    Args:
        network: A stand-alone network.
        layout: What it takes and gives.
        title: First line of the source.

    Raises:
        TypeError: If it holds an operation that is not known here, which is a fault of ours.
    """
    graph = fx.Tracer().trace(network.eval())
    modules = dict(network.named_modules())
    made: dict[str, str] = {}
    state: dict[str, torch.Tensor] = {}
    steps: list[str] = []
    argument = ""
    for node in graph.nodes:
        if node.op == "placeholder":
            argument = node.name
        elif node.op == "call_module":
            name, module = re.sub(r"\W", "_", node.target), modules[node.target]
            if isinstance(module, nn.Identity | nn.Dropout):
                steps.append(f"{node.name} = {_word(node.args[0])}")
                continue
            made[name] = _constructor(module)
            state.update({f"{name}.{key}": v.detach().clone() for key, v in module.state_dict().items()})
            steps.append(f"{node.name} = self.{name}({_words(node)})")
        elif node.op == "call_function":
            if node.target not in _FUNCTIONS:
                raise TypeError(f"no source for the function {node.target}")
            steps.append(f"{node.name} = {_FUNCTIONS[node.target]}({_words(node)})")
        elif node.op == "call_method":
            steps.append(f"{node.name} = {_word(node.args[0])}.{node.target}({_words(node, 1)})")
        elif node.op == "output":
            steps.append(f"return {_word(node.args[0])}")
        else:
            raise TypeError(f"no source for {node.op} {node.target}")
    text = _HEAD.format(
        title=title,
        channels=layout.in_channels,
        side=layout.resolution,
        classes=layout.classes,
        made="\n".join(f"        self.{name} = {call}" for name, call in made.items()),
        argument=argument,
        steps="\n".join(f"        {step}" for step in steps),
    )
    return text, state


def _constructor(module: nn.Module) -> str:
    if isinstance(module, nn.AvgPool2d):  # its own words leave out what matters
        return (
            f"nn.AvgPool2d({module.kernel_size}, {module.stride}, {module.padding}, "
            f"ceil_mode={module.ceil_mode}, count_include_pad={module.count_include_pad})"
        )
    if isinstance(module, nn.BatchNorm2d):  # in words that older releases know too
        return (
            f"nn.BatchNorm2d({module.num_features}, eps={module.eps}, momentum={module.momentum}, "
            f"affine={module.affine}, track_running_stats={module.track_running_stats})"
        )
    if not isinstance(module, nn.Conv2d | nn.Linear | nn.ReLU | nn.ReLU6 | nn.Hardswish | nn.MaxPool2d):
        raise TypeError(f"no source for {type(module).__name__}")
    return f"nn.{module!r}"


def _words(node: fx.Node, first: int = 0) -> str:
    named = [f"{key}={_word(value)}" for key, value in node.kwargs.items()]
    return ", ".join([*(_word(value) for value in node.args[first:]), *named])


def _word(value: Any) -> str:
    if isinstance(value, fx.Node):
        return value.name
    if isinstance(value, list | tuple):
        inner = ", ".join(_word(one) for one in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner},)"
    if isinstance(value, slice):
        return f"slice({value.start}, {value.stop}, {value.step})"
    return repr(value)


def export_files(network: nn.Module, layout: Layout, path: str | os.PathLike[str], title: str) -> list[Path]:
    """Write source and weights, after running both: what they give must be what the network gives, bit for bit.

    Args:
        network: A stand-alone network on the CPU.
        layout: What it takes and gives.
        path: Of the source, ending in .py; the weights get .pt.
        title: First line of the source.

    Raises:
        UserError: If the source computes something else; nothing is written then.
    """
    text, state = network_source(network, layout, title)
    space: dict[str, Any] = {"__file__": os.fspath(path)}
    exec(compile(text, os.fspath(path), "exec"), space)
    held = io.BytesIO()
    torch.save(state, held)
    source = torch.Generator().manual_seed(0)
    pictures = torch.randn(3, layout.in_channels, layout.resolution, layout.resolution, generator=source)
    with torch.no_grad():
        given = space["load"](io.BytesIO(held.getvalue()))(pictures)
        if not torch.equal(given, network(pictures)):
            raise UserError(f"out={os.fspath(path)!r}: the exported network computes something else; not written")
    target = Path(path)
    weights = target.with_suffix(".pt")
    with atomic(weights) as temporary:
        temporary.write_bytes(held.getvalue())
    with atomic(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return [target, weights]
