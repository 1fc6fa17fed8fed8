"""GhostNet: the released large form, which scales, and the published 1.0x form, which does not.

A ghost module from c to o makes a = ceil(o / 2) channels by a 1x1 convolution and as many by a 3x3 depthwise one on
those; its output is their concatenation, cut to o.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from greedy_enlarge.families.net import Net
from greedy_enlarge.families.sinks import Sink
from greedy_enlarge.ops.numbers import ceil_half, divisible, halved

__all__ = ["KERNELS", "PUBLISHED", "STRIDES", "GhostBlock", "blocks", "head_width", "hidden_width", "walk_large",
           "walk_published"]  # fmt: skip

KERNELS = (3, 3, 5, 3, 3, 5)
STRIDES = (1, 2, 2, 2, 1, 2)
# Hidden channels over the channels they are derived from: the first block of a stage, and the others.
_FIRST = (1, 3, 3, 6, 6, 6)
_OTHERS = (1, 3, 3, 2.5, 6, 6)


@dataclass(frozen=True)
class GhostBlock:
    """One block with all its numbers.

    Attributes:
        inputs: Channels in.
        hidden: Channels between the two ghost modules.
        outputs: Channels out.
        kernel: Side of the depthwise convolutions.
        stride: Of the block.
        squeeze: Channels of the squeeze; 0 for none.
    """

    inputs: int
    hidden: int
    outputs: int
    kernel: int
    stride: int
    squeeze: int


def hidden_width(stage: int, first: bool, widths: Any) -> Any:
    """Hidden channels of a block of the large form.

    Args:
        stage: From 0.
        first: Whether it is the first block of its stage.
        widths: Of all stages; numbers or arrays.
    """
    source = widths[max(0, stage - 1)] if first else widths[stage]
    return divisible(source * (_FIRST if first else _OTHERS)[stage], 4)


def squeeze_width(hidden: Any) -> Any:
    """Squeeze channels of the large form: a tenth, in multiples of 8."""
    return divisible(0.1 * hidden, 8)


def head_width(widths: Any) -> Any:
    """Channels before the classifier of the large form."""
    wide = 5 * widths[-1]
    return np.maximum(1280, wide) if isinstance(wide, np.ndarray) else max(1280, wide)


def _module(sink: Sink, part: int, times: Any, c: Any, o: Any, area: Any) -> None:
    a = ceil_half(o)
    sink.conv(part, times, c, a, 1, area)
    sink.conv(part, times, 1, a, 9, area)


def _block(
    sink: Sink, part: int, times: Any, c: Any, m: Any, o: Any, q: Any, before: Any, after: Any, kernel: int,
    stride: int = 1, projections: Any = 0,
) -> None:  # fmt: skip
    """``times`` equal blocks: ``c`` in, ``m`` hidden, ``o`` out, ``q`` squeeze; of them ``projections`` project."""
    _module(sink, part, times, c, m, before)
    if stride == 2:
        sink.conv(part, times, 1, m, kernel**2, after)
    if q is not None:
        sink.conv(part, times, m, q, 1, 1, bias=True, norm=False)
        sink.conv(part, times, q, m, 1, 1, bias=True, norm=False)
    _module(sink, part, times, m, o, after)
    if isinstance(projections, np.ndarray) or projections:
        sink.conv(part, projections, 1, c, kernel**2, after)
        sink.conv(part, projections, c, o, 1, after)


def _tail(sink: Sink, c: Any, tail: Any, head: Any, classes: int, area: Any) -> None:
    sink.conv(7, 1, c, tail, 1, area)
    sink.pool(7, tail, area)
    sink.conv(7, 1, tail, head, 1, 1, bias=True, norm=False)
    sink.linear(7, head, classes)


def walk_large(net: Net, sink: Sink) -> None:
    """List all layers of the large form."""
    side = halved(net.side)
    before = side * side
    c = divisible(net.widths[0], 4)  # the stem is the first width
    sink.conv(0, 1, net.in_chans, c, 9, before)
    m: Any = 0
    for stage in range(6):
        after = before
        if STRIDES[stage] == 2:
            side = halved(side)
            after = side * side
        depth, o, part, kernel = net.depths[stage], net.widths[stage], stage + 1, KERNELS[stage]
        first, m = hidden_width(stage, True, net.widths), hidden_width(stage, False, net.widths)
        projected = 1 if STRIDES[stage] == 2 else 1 * (c != o)
        _block(sink, part, 1, c, first, o, squeeze_width(first), before, after, kernel, STRIDES[stage], projected)
        _block(sink, part, depth - 1, o, m, o, squeeze_width(m), after, after, kernel)
        before, c = after, o
        # The tail is as wide as the hidden channels of the last block, which a stage of depth 1 has from its first.
        m = np.where(depth == 1, first, m) if isinstance(depth, np.ndarray) else first if depth == 1 else m
    _tail(sink, c, m, head_width(net.widths), net.classes, before)


# The 1.0x form as published: hidden channels and squeezes by block, stage by stage.
PUBLISHED = (
    ((16, 0),),
    ((48, 0), (72, 0)),
    ((72, 20), (120, 32)),
    ((240, 0), (200, 0), (184, 0), (184, 0)),
    ((480, 120), (672, 168)),
    ((672, 168), (960, 0), (960, 240), (960, 0), (960, 240)),
)


def walk_published(net: Net, sink: Sink) -> None:
    """List all layers of the published form, whose depths and widths are fixed."""
    side = halved(net.side)
    before = side * side
    c: Any = net.widths[0]
    sink.conv(0, 1, net.in_chans, c, 9, before)
    for stage, row in enumerate(PUBLISHED):
        for index, (m, q) in enumerate(row):
            stride = STRIDES[stage] if index == 0 else 1
            after = before
            if stride == 2:
                side = halved(side)
                after = side * side
            o = net.widths[stage]
            projected = 1 if stride == 2 else 1 * (c != o)
            _block(sink, stage + 1, 1, c, m, o, q or None, before, after, KERNELS[stage], stride, projected)
            before, c = after, o
    _tail(sink, c, 960, 1280, net.classes, before)


def blocks(depths: tuple[int, ...], widths: tuple[int, ...], *, large: bool) -> list[list[GhostBlock]]:
    """Every block of one network, for building it.

    Args:
        depths: Per stage.
        widths: Per stage.
        large: The large form; otherwise the published one.
    """
    c = divisible(widths[0], 4)
    stages = []
    for stage in range(6):
        row = []
        for index in range(depths[stage]):
            if large:
                m = hidden_width(stage, index == 0, widths)
                q = squeeze_width(m)
            else:
                m, q = PUBLISHED[stage][index]
            row.append(GhostBlock(c, m, widths[stage], KERNELS[stage], STRIDES[stage] if index == 0 else 1, q))
            c = widths[stage]
        stages.append(row)
    return stages
