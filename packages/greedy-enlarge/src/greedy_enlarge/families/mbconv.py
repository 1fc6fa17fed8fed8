"""EfficientNet, and any network of timm arch strings: inverted residuals, depthwise separable, fused, plain blocks.

Per block with input c, output o, hidden m = make_divisible(c e, 8), squeeze q = round(m s / e), side h before and h'
after the stride (section 4 of the fact sheet):

    ir   c m h^2 + k^2 m h'^2 + 2 m q + m o h'^2
    ds   k^2 c h'^2 + 2 c q + c o h'^2
    er   k^2 c m h'^2 + 2 m q + m o h'^2
    cn   k^2 c o h'^2
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from effkit.errors import UserError
from greedy_enlarge.families.net import Net
from greedy_enlarge.families.sinks import Sink
from greedy_enlarge.ops.numbers import halved, nearest_even, scaled_divisible

__all__ = ["EFFICIENTNET", "Block", "arch_string", "parse", "walk"]

_KINDS = ("ir", "ds", "er", "cn")
_ACTIVATIONS = ("re", "r6", "hs", "sw", "mi")
_WORD = re.compile(r"(se|r|k|s|e|c)(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Block:
    """What the blocks of a stage share.

    Attributes:
        kind: ``ir``, ``ds``, ``er`` or ``cn``.
        kernel: Side of the spatial convolution.
        stride: Of the first block.
        expansion: Hidden over input channels.
        squeeze: Squeeze-and-excitation channels over input channels; 0 for none.
        skip: Whether equal shapes are added.
        act: timm's suffix for another activation, e.g. ``nre``.
    """

    kind: str
    kernel: int
    stride: int
    expansion: float = 1.0
    squeeze: float = 0.0
    skip: bool = True
    act: str = ""


def parse(string: str) -> tuple[Block, int, int]:
    """Read a timm arch string.

    Args:
        string: E.g. ``"ir_r2_k3_s2_e6_c24_se0.25"``.

    Returns:
        The block, its repeats and its output channels.

    Raises:
        UserError: If it holds anything whose cost is not known here exactly.
    """
    kind, *words = string.split("_")
    if kind not in _KINDS:
        raise UserError(f"template string {string!r}: block {kind!r} is not known here, use {', '.join(_KINDS)}")
    values: dict[str, float] = {}
    skip, act = kind != "cn", ""
    for word in words:
        found = _WORD.fullmatch(word)
        if found and found[1] not in values:
            values[found[1]] = float(found[2])
        elif word == "noskip" and kind != "cn":
            skip = False
        elif word == "skip" and kind == "cn":
            skip = True
        elif word[:1] == "n" and word[1:] in _ACTIVATIONS:
            act = word
        else:
            raise UserError(f"template string {string!r}: {word!r} is not known here; known are r k s e c se n noskip")
    needed = {"k", "s"} | ({"e"} if kind in ("ir", "er") else set())
    absent = sorted(needed - set(values))
    if absent:
        raise UserError(f"template string {string!r} lacks {', '.join(absent)}")
    if kind == "cn" and values.get("se"):
        raise UserError(f"template string {string!r}: a cn block has no se")
    whole = {key: values.get(key, 1.0) for key in ("r", "k", "s", "c")}
    for key, value in whole.items():
        if value != int(value) or value < 1:
            raise UserError(f"template string {string!r}: {key}={value:g} must be a whole number of at least 1")
    kernel, stride = int(whole["k"]), int(whole["s"])
    if kernel % 2 == 0 or stride not in (1, 2):
        raise UserError(f"template string {string!r}: k must be odd and s 1 or 2, got k={kernel}, s={stride}")
    expansion = values.get("e", 1.0) if kind in ("ir", "er") else 1.0
    if expansion < 1:
        raise UserError(f"template string {string!r}: e={expansion:g} must be at least 1")
    block = Block(kind, kernel, stride, expansion, values.get("se", 0.0), skip, act)
    return block, int(whole["r"]), int(whole["c"])


def arch_string(block: Block, depth: int, width: int) -> str:
    """Write a timm arch string; the inverse of :func:`parse`."""
    words = [block.kind, f"r{depth}", f"k{block.kernel}", f"s{block.stride}"]
    words += [f"e{block.expansion:g}"] if block.kind in ("ir", "er") else ["e1"] if block.kind == "ds" else []
    words += [f"c{width}"]
    words += [f"se{block.squeeze:g}"] if block.squeeze else []
    words += [block.act] if block.act else []
    if block.kind == "cn":
        words += ["skip"] if block.skip else []
    else:
        words += [] if block.skip else ["noskip"]
    return "_".join(words)


EFFICIENTNET = tuple(
    Block(kind, kernel, stride, float(expansion), 0.25)
    for kind, kernel, stride, expansion in (
        ("ds", 3, 1, 1), ("ir", 3, 2, 6), ("ir", 5, 2, 6), ("ir", 3, 2, 6), ("ir", 5, 1, 6), ("ir", 5, 2, 6),
        ("ir", 3, 1, 6),
    )
)  # fmt: skip


def _list_blocks(sink: Sink, part: int, times: Any, block: Block, c: Any, o: Any, before: Any, after: Any) -> None:
    """``times`` equal blocks: ``c`` channels in, ``o`` out, ``before`` pixels in, ``after`` out."""
    taps = block.kernel**2
    if block.kind == "cn":
        sink.conv(part, times, c, o, taps, after)
        return
    m = c
    if block.kind == "ir":
        m = scaled_divisible(c, block.expansion, 8)
        sink.conv(part, times, c, m, 1, before)
    if block.kind == "er":
        m = scaled_divisible(c, block.expansion, 8)
        sink.conv(part, times, c, m, taps, after)
    else:
        sink.conv(part, times, 1, m, taps, after)
    if block.squeeze:
        q = nearest_even(m * (block.squeeze / block.expansion))
        sink.conv(part, times, m, q, 1, 1, bias=True, norm=False)
        sink.conv(part, times, q, m, 1, 1, bias=True, norm=False)
    sink.conv(part, times, m, o, 1, after)


def walk(net: Net, sink: Sink) -> None:
    """List all layers of a network."""
    side = halved(net.side)
    before = side * side
    sink.conv(0, 1, net.in_chans, net.stem, 9, before)
    c = net.stem
    last = len(net.blocks) + 1
    for part, (block, depth, width) in enumerate(zip(net.blocks, net.depths, net.widths, strict=True), 1):
        after = before
        if block.stride == 2:
            side = halved(side)
            after = side * side
        _list_blocks(sink, part, 1, block, c, width, before, after)
        _list_blocks(sink, part, depth - 1, block, width, width, after, after)
        before, c = after, width
    sink.conv(last, 1, c, net.head, 1, before)
    sink.pool(last, net.head, before)
    sink.linear(last, net.head, net.classes)
