"""The local tokens a second time: rotated once, and kept until they leave the local part."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from esa_attention.attention.cache.buffers import empty
from esa_attention.attention.rope import RopeTables

__all__ = ["RotatedWindow"]


class RotatedWindow:
    """Keys of the latest tokens of one sequence, rotated once and kept; their values beside them.

    A token is rotated to its distance from ``base``. Positions only have to differ rightly, so when the window has
    moved through the buffer, the local tokens are rotated anew from position 0: positions stay as small as the attended
    length (large ones lose digits in float32), and a token costs a constant number of rotations.

    Head-major, unlike the store: these tokens are read in every step and never gathered, and a product over the keys of
    one head runs up to twice as fast when they lie together (a token-major row is two pages away from the next).

    Args:
        shape: ``(K, D)`` of a token.
        dtype: Of the keys.
        device: Where attention runs.
        tables: Rotary tables.
        capacity: Tokens of room; at least the local ones and a chunk.
        values: Keep the values as well; else they are read from the store.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        tables: RopeTables,
        capacity: int,
        values: bool = False,
    ) -> None:
        self.tables = tables
        size = (shape[0], capacity, shape[1])
        self.keys = empty(size, dtype, device)
        self.values = empty(size, dtype, device) if values else None
        self.base = self.end = 0
        # Tables are float32 as the model's are, so a rotation by p + n and one by p differ in the eighth digit. Whoever
        # computes in float64 wants the others, and gets every window rotated from position 0.
        self.moves = dtype != torch.float64

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return self.keys.numel() * self.keys.element_size() * (1 if self.values is None else 2)

    def read(self, store: Tensor, begin: int, end: int) -> tuple[Tensor, Tensor, int]:
        """Rotated keys and the values of tokens ``[begin, end)``, brought up to date from the store.

        Args:
            store: Unrotated keys and values of all tokens of the sequence, ``(capacity, 2, K, D)``.
            begin: First token.
            end: One past the last.

        Returns:
            Keys and values ``(K, end - begin, D)``, views, and the position of the first token.
        """
        assert end - begin <= self.keys.shape[1], "a local part and a chunk are all that is ever read"
        outside = begin < self.base or end - self.base > self.keys.shape[1] or self.end < begin
        if outside or (begin != self.base and not self.moves):
            self.base = self.end = begin
        if end > self.end:
            fresh = store[self.end : end].to(self.keys.device, non_blocking=True).permute(1, 2, 0, 3)
            low, high = self.end - self.base, end - self.base
            self.keys[:, low:high] = self.tables.rotate(fresh[0], low)
            if self.values is not None:
                self.values[:, low:high] = fresh[1]
            self.end = end
        low, high = begin - self.base, end - self.base
        values = store[begin:end, 1].transpose(0, 1) if self.values is None else self.values[:, low:high]
        return self.keys[:, low:high], values, low

    def crop(self, length: int) -> None:
        """Forget what was rotated of tokens from ``length`` on."""
        self.end = max(min(self.end, length), self.base)
        if length < self.base:
            self.base = self.end = length

    def copy(self) -> RotatedWindow:
        """The same window with memory of its own, for another beam."""
        other = copy.copy(self)
        other.keys = empty(self.keys.shape, self.keys.dtype, self.keys.device).copy_(self.keys)
        if self.values is not None:
            other.values = empty(self.values.shape, self.values.dtype, self.values.device).copy_(self.values)
        return other
