"""One forward pass of a decoder over a cache: it is written whole, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from esa_attention.attention.cache.fixed import FixedState
from esa_attention.attention.cache.layer import ESALayer, LastChoice

__all__ = ["Handed", "Mark", "Pass", "marked", "restore"]


class Mark(NamedTuple):
    """What a layer held before a pass."""

    initialized: bool
    tokens: int
    choices: dict[int, LastChoice]


@dataclass(frozen=True)
class Pass:
    """A forward pass that has begun.

    Attributes:
        marks: What every layer held before it.
        length: Tokens every layer holds after it.
        starts: First real token of every row; ``None`` where nothing is padded.
        thread: Which thread runs it.
    """

    marks: list[Mark]
    length: int
    starts: Sequence[int] | None
    thread: int

    def runs_elsewhere(self) -> bool:
        """Whether another thread that is still alive runs it."""
        return self.thread != threading.get_ident() and any(t.ident == self.thread for t in threading.enumerate())


class Handed(NamedTuple):
    """What the keys and values that a layer hands to attention carry: where they are from."""

    layer: ESALayer
    starts: Sequence[int] | None
    state: FixedState | None = None  # set where the layer has not appended them, and the step will


def marked(layers: Sequence[Any]) -> list[Mark]:
    """What the layers hold."""
    return [Mark(x.is_initialized, x.get_seq_length(), dict(x.derived.choices)) for x in layers]


def restore(layers: Sequence[Any], marks: Sequence[Mark]) -> None:
    """Give layers back what they held when they were marked; tokens were appended since, and nothing else."""
    for layer, mark in zip(layers, marks, strict=True):
        if not mark.initialized:
            layer.reset()  # the next tokens may have another batch size or type
        else:
            layer.crop(mark.tokens - layer.get_seq_length())
            layer.derived.choices = dict(mark.choices)
