"""ResNet (basic and bottleneck) and RegNet (X and Y), both as timm builds them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from effkit.errors import UserError
from greedy_enlarge.families.net import Net
from greedy_enlarge.families.sinks import Sink
from greedy_enlarge.ops.numbers import halved, nearest_even

__all__ = ["RegNetKind", "regnet_kind", "walk_regnet", "walk_resnet"]


def _projection(sink: Sink, part: int, c: Any, o: Any, after: Any, stride: int) -> None:
    """The 1x1 convolution beside the first block of a stage; not there where shapes are equal."""
    times = 1 if stride == 2 else 1 * (c != o)
    sink.conv(part, times, c, o, 1, after)


def walk_resnet(net: Net, sink: Sink) -> None:
    """List all layers of a ResNet; ``blocks`` is ``("basic",)`` or ``("bottleneck",)``."""
    bottleneck = net.blocks[0] == "bottleneck"
    side = halved(net.side)
    sink.conv(0, 1, net.in_chans, net.stem, 49, side * side)
    side = halved(side)  # maximum pooling
    before, c = side * side, net.stem
    for stage, (depth, o) in enumerate(zip(net.depths, net.widths, strict=True)):
        part, stride = stage + 1, 1 if stage == 0 else 2
        after = before
        if stride == 2:
            side = halved(side)
            after = side * side
        if bottleneck:
            p = o // 4
            sink.conv(part, 1, c, p, 1, before)
            sink.conv(part, depth - 1, o, p, 1, after)
            sink.conv(part, depth, p, p, 9, after)
            sink.conv(part, depth, p, o, 1, after)
        else:
            sink.conv(part, 1, c, o, 9, after)
            sink.conv(part, depth - 1, o, o, 9, after)
            sink.conv(part, depth, o, o, 9, after)
        _projection(sink, part, c, o, after, stride)
        before, c = after, o
    sink.pool(5, c, before)
    sink.linear(5, c, net.classes)


@dataclass(frozen=True)
class RegNetKind:
    """What the blocks of a RegNet share.

    Attributes:
        group: Channels a group of the 3x3 convolution.
        squeeze: Squeeze channels over input channels: 0 for X, 0.25 for Y.
    """

    group: int
    squeeze: float


def regnet_kind(template: tuple[str, ...]) -> RegNetKind:
    """Read a RegNet's template.

    Args:
        template: One string, ``"x_g24"`` or ``"y_g8"``.

    Raises:
        UserError: If it is anything else.
    """
    found = re.fullmatch(r"([xy])_g([1-9]\d*)", template[0]) if len(template) == 1 else None
    if not found:
        raise UserError(f"spec.template={list(template)} of a regnet must be kind and group width, e.g. ['y_g8']")
    return RegNetKind(int(found[2]), 0.25 if found[1] == "y" else 0.0)


def walk_regnet(net: Net, sink: Sink) -> None:
    """List all layers of a RegNet; ``blocks`` holds a :class:`RegNetKind`."""
    kind: RegNetKind = net.blocks[0]
    side = halved(net.side)
    before, c = side * side, net.stem
    sink.conv(0, 1, net.in_chans, c, 9, before)
    for stage, (depth, o) in enumerate(zip(net.depths, net.widths, strict=True)):
        part = stage + 1
        side = halved(side)
        after = side * side
        sink.conv(part, 1, c, o, 1, before)
        sink.conv(part, depth - 1, o, o, 1, after)
        sink.conv(part, depth, kind.group, o, 9, after)
        sink.conv(part, depth, o, o, 1, after)
        if kind.squeeze:
            for times, inputs in ((1, c), (depth - 1, o)):
                q = nearest_even(inputs * kind.squeeze)
                sink.conv(part, times, o, q, 1, 1, bias=True, norm=False)
                sink.conv(part, times, q, o, 1, 1, bias=True, norm=False)
        _projection(sink, part, c, o, after, 2)
        before, c = after, o
    sink.pool(5, c, before)
    sink.linear(5, c, net.classes)
