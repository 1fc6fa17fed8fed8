"""Where the tokens of a cache begin and end, as tensors on the device, for decoding steps that are replayed.

A step that reads its lengths from the device, and is sized by the room of the buffers instead of by what they hold, is
the same list of launches for every token: a CUDA graph of it can be replayed while the sequence grows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from esa_attention.attention.cache.buffers import empty

__all__ = ["FixedState"]


class FixedState:
    """Length and starts of a batch on one device, and what of them the host knows without asking.

    Args:
        batch: Sequences.
        device: Where.

    Attributes:
        length: Tokens of every row, ``(1,)`` int64.
        start: First real token of every row ``(B,)`` int64.
    """

    def __init__(self, batch: int, device: torch.device) -> None:
        self.length = empty((1,), torch.int64, device)
        self.start = empty((batch,), torch.int64, device)
        self._length: int | None = None
        self._starts: tuple[int, ...] | None = None

    def agree(self, length: int, starts: Sequence[int] | None) -> None:
        """Let the device know what the host knows, where it does not: after reading, cropping, another batch."""
        with torch.inference_mode(False):
            if length != self._length:
                self.length.fill_(length)
                self._length = length
            given = tuple(starts) if starts is not None else (0,) * self.start.shape[0]
            if given != self._starts:
                self.start.copy_(torch.tensor(given))
                self._starts = given

    def advance(self, count: int = 1) -> None:
        """What the step has added to ``length`` on the device."""
        assert self._length is not None
        self._length += count

    def forget(self) -> None:
        """Nobody knows what a step that failed has left."""
        self._length = None
