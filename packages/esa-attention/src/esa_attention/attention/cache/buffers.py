"""Memory of the cache: buffers that grow by doubling, and compressed keys in them.

Everything is token-major: one token's numbers lie together, so that appending a token writes one short run, gathering a
token reads one, and the rows of the index are a matrix to multiply with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from esa_attention.attention.cache.pages import advise
from esa_attention.ops.index_rows import quantised

__all__ = ["GrowingBuffer", "IndexStore", "empty", "index_dtype"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}
_LEAST = 64  # tokens of a new buffer


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device, pin: bool = False) -> Tensor:
    """Memory that may be written in any mode: what ``inference_mode`` makes can never be written outside it."""
    with torch.inference_mode(False):
        memory = torch.empty(*shape, dtype=dtype, device=device, pin_memory=pin)
    return advise(memory) if device.type == "cpu" and not pin else memory


def index_dtype(asked: str, dtype: torch.dtype, kind: str, exact: bool) -> torch.dtype:
    """In which type compressed keys are stored.

    Args:
        asked: ``auto`` or a type by name. A CPU multiplies float32 fastest; a step on a GPU is bound by the bytes of
            the index, so there ``auto`` is eight bits, half of bfloat16.
        dtype: Of the keys.
        kind: Of device.
        exact: Whether the keys themselves are the index, which would have to be stored a second time in eight bits.
    """
    if asked != "auto":
        return _DTYPES[asked]
    if kind == "cpu":
        return torch.promote_types(dtype, torch.float32)
    return torch.int8 if kind == "cuda" and not exact else dtype


class GrowingBuffer:
    """Rows of tokens with amortised constant cost of appending.

    Args:
        batch: Sequences.
        shape: Of one token.
        dtype: Of the numbers.
        device: Where they are.
        reserve: Tokens to make room for at once.
        pin: Page-locked host memory, from which a GPU copies without waiting.

    Attributes:
        data: ``(B, capacity, *shape)``; what is past ``length`` is undefined.
        length: Tokens held.
    """

    def __init__(
        self,
        batch: int,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        reserve: int = 0,
        pin: bool = False,
    ) -> None:
        self.pin = pin
        self.length = 0
        self.data = self._new(batch, max(reserve, _LEAST), shape, dtype, device)

    def _new(self, batch: int, capacity: int, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        return empty((batch, capacity, *shape), dtype, device, self.pin)

    @property
    def capacity(self) -> int:
        """Tokens there is room for."""
        return self.data.shape[1]

    @property
    def rows(self) -> Tensor:
        """The tokens held, ``(B, length, *shape)``, a view."""
        return self.data[:, : self.length]

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return self.data.numel() * self.data.element_size()

    def make_room(self, count: int) -> None:
        """Make room for ``count`` more tokens, should there be none."""
        end = self.length + count
        if end > self.capacity:
            old = self.data
            self.data = self._new(old.shape[0], max(end, 2 * self.capacity), old.shape[2:], old.dtype, old.device)
            self.data[:, : self.length] = old[:, : self.length]

    def extend(self, count: int) -> Tensor:
        """Make room for ``count`` more tokens and return their (undefined) rows to write into."""
        self.make_room(count)
        end = self.length + count
        new = self.data[:, self.length : end]
        self.length = end
        return new

    def crop(self, length: int) -> None:
        """Forget all but the first ``length`` tokens."""
        self.length = min(self.length, length)

    def copy(self) -> GrowingBuffer:
        """The same tokens in memory of their own, with the same room."""
        other = GrowingBuffer.__new__(GrowingBuffer)
        other.__dict__.update(self.__dict__)
        other.data = self._new(
            self.data.shape[0], self.capacity, self.data.shape[2:], self.data.dtype, self.data.device
        )
        other.rows.copy_(self.rows)
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Without the room that no token has taken yet."""
        return {**self.__dict__, "data": self.rows.clone()}

    def rearrange(self, rows: Tensor) -> None:
        """Make a batch of the sequences ``rows`` (indices, repeats allowed); the capacity stays."""
        held = self.rows.index_select(0, rows.to(self.data.device))
        data = self._new(held.shape[0], self.capacity, self.data.shape[2:], self.data.dtype, self.data.device)
        data[:, : self.length] = held
        self.data = data


class IndexStore:
    """Compressed keys k' of all tokens, as they are or in 8 bits with one scale a token.

    Args:
        batch: Sequences.
        rank: Numbers a token.
        dtype: Floating type, or ``torch.int8``.
        device: Where.
        reserve: Tokens to make room for.

    Attributes:
        keys: Buffer ``(B, capacity, R)``.
        scale: Buffer ``(B, capacity)`` for 8 bits: a key is ``keys * scale``. ``None`` otherwise.
    """

    def __init__(self, batch: int, rank: int, dtype: torch.dtype, device: torch.device, reserve: int = 0) -> None:
        self.keys = GrowingBuffer(batch, (rank,), dtype, device, reserve)
        self.scale = GrowingBuffer(batch, (), torch.float32, device, reserve) if dtype == torch.int8 else None

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return self.keys.nbytes + (self.scale.nbytes if self.scale else 0)

    def extend(self, count: int) -> None:
        """Make room for ``count`` more tokens, whose rows are undefined."""
        self.keys.extend(count)
        if self.scale is not None:
            self.scale.extend(count)

    def write_last(self, compressed: Tensor) -> None:
        """Give the last tokens their rows ``(B, T, R)``."""
        first = self.keys.length - compressed.shape[1]
        rows = self.keys.rows[:, first:]
        if self.scale is None:
            rows.copy_(compressed)
            return
        digits, scale = quantised(compressed)
        self.scale.rows[:, first:].copy_(scale)
        rows.copy_(digits)

    def floats(self, begin: int, end: int) -> Tensor:
        """Keys ``[begin, end)`` as floating numbers, ``(B, N, R)``; a view where nothing has to be converted."""
        rows = self.keys.data[:, begin:end]
        return rows if self.scale is None else rows.float() * self.scale.data[:, begin:end, None]

    def copy(self) -> IndexStore:
        """The same keys in memory of their own."""
        other = IndexStore.__new__(IndexStore)
        other.__dict__.update(self.__dict__)
        other.keys = self.keys.copy()
        other.scale = None if self.scale is None else self.scale.copy()
        return other

    def crop(self, length: int) -> None:
        """Forget all but the first ``length`` tokens."""
        self.keys.crop(length)
        if self.scale is not None:
            self.scale.crop(length)

    def rearrange(self, rows: Tensor) -> None:
        """Make another batch, see :meth:`GrowingBuffer.rearrange`."""
        self.keys.rearrange(rows)
        if self.scale is not None:
            self.scale.rearrange(rows)
