"""What a value of the graph is, channel by channel: which map of which tensor, read where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import fx, nn

from shiftghost_sr.ops.shift import Direction

__all__ = ["Base", "Channel", "Run", "by_base", "is_plain", "is_whole", "runs"]


@dataclass
class Base:
    """A tensor of the new graph, and an activation that has not been applied to it yet."""

    node: fx.Node
    size: int
    fresh: bool  # made here: nobody else holds it, and it may be changed once it has been read for the last time
    act: nn.Module | None = None
    owner: fx.Node | None = None  # the old node whose output this tensor alone is
    activated: dict[int, int] = field(default_factory=dict)  # by activation: the tensor after it


@dataclass(frozen=True)
class Channel:
    """One channel: map ``source`` of tensor ``base`` (a number), read at ``move``."""

    base: int
    source: int
    move: Direction = (0, 0)


@dataclass(frozen=True)
class Run:
    """Channels that are consecutive maps of one tensor at one move: first channel, tensor, first map, how many."""

    first: int
    base: int
    source: int
    count: int
    move: Direction


def is_plain(channels: Sequence[Channel]) -> bool:
    """Whether nothing is moved, and no map of a tensor comes twice: joined tensors, or parts of them."""
    return all(c.move == (0, 0) for c in channels) and len({(c.base, c.source) for c in channels}) == len(channels)


def is_whole(channels: Sequence[Channel], sizes: dict[int, int]) -> bool:
    """Whether it is one tensor as it stands."""
    first = channels[0].base
    whole = all(c == Channel(first, i) for i, c in enumerate(channels))
    return whole and sizes[first] == len(channels)


def runs(channels: Sequence[Channel]) -> list[Run]:
    """Channels as runs."""
    found: list[Run] = []
    for place, c in enumerate(channels):
        last = found[-1] if found else None
        if last and (last.base, last.move, last.source + last.count) == (c.base, c.move, c.source):
            found[-1] = Run(last.first, last.base, last.source, last.count + 1, last.move)
        else:
            found.append(Run(place, c.base, c.source, 1, c.move))
    return found


def by_base(channels: Sequence[Channel]) -> dict[int, list[int]]:
    """Channels of each tensor, in the order of their first one."""
    found: dict[int, list[int]] = {}
    for place, c in enumerate(channels):
        found.setdefault(c.base, []).append(place)
    return found
