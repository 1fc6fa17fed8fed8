"""Keys as the model itself would have cached them: rotated to their true positions, for full attention.

While a sequence is short, full attention is faster than choosing (``dense_until``). Its keys are kept beside the
unrotated ones, brought up to date from them, and dropped when the last row is longer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from esa_attention.attention.cache.buffers import empty
from esa_attention.attention.rope import RopeTables

__all__ = ["DenseKeys"]

_LEAST = 256  # tokens of room


class DenseKeys:
    """Rotated keys of all tokens of a batch, by head.

    Args:
        tables: Rotary tables.
        dtype: Of the keys.
        device: Where attention runs.
        values: Keep the values by head as well (twice as fast to read on a CPU); else they are views of the store.

    Attributes:
        length: Tokens held.
    """

    def __init__(self, tables: RopeTables, dtype: torch.dtype, device: torch.device, values: bool) -> None:
        self.tables, self.dtype, self.device = tables, dtype, device
        self.length = 0
        self._starts: tuple[int, ...] | None = None
        self._keeps_values = values
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return sum(t.numel() * t.element_size() for t in (self._keys, self._values) if t is not None)

    def read(self, store: Tensor, end: int, starts: Sequence[int] | None) -> tuple[Tensor, Tensor]:
        """Keys and values of the tokens before ``end``, brought up to date from the store.

        Args:
            store: Unrotated keys and values of all tokens, ``(B, capacity, 2, K, D)``.
            end: How many tokens.
            starts: First real token of every row, which stands at position 0; where nothing is padded, ``None``.

        Returns:
            ``(B, K, end, D)`` each, views.
        """
        given = None if starts is None else tuple(starts)
        if given != self._starts:
            self.length, self._starts = 0, given
        if end > self.length:
            self._append(store, end)
        assert self._keys is not None
        values = store[:, :end, 1].transpose(1, 2) if self._values is None else self._values[:, :, :end]
        return self._keys[:, :, :end], values

    def _append(self, store: Tensor, end: int) -> None:
        low = self.length
        self._make_room(store, end)
        assert self._keys is not None
        fresh = store[:, low:end].to(self.device, non_blocking=True).permute(2, 0, 3, 1, 4)
        self._keys[:, :, low:end] = self.tables.rotate_as_the_model(fresh[0], low, self._starts)
        if self._values is not None:
            self._values[:, :, low:end] = fresh[1]
        self.length = end

    def _make_room(self, store: Tensor, end: int) -> None:
        held = self._keys
        if held is not None and held.shape[2] >= end:
            return
        capacity = max(end, _LEAST) if held is None else max(end, 2 * held.shape[2])
        shape = (store.shape[0], store.shape[3], capacity, store.shape[4])

        def larger(old: Tensor | None) -> Tensor:
            new = empty(shape, self.dtype, self.device)
            if old is not None:
                new[:, :, : self.length] = old[:, :, : self.length]
            return new

        self._keys = larger(self._keys)
        self._values = larger(self._values) if self._keeps_values else None

    def crop(self, length: int) -> None:
        """Forget what was rotated of tokens from ``length`` on."""
        self.length = min(self.length, length)

    def rearrange(self, rows: Tensor) -> None:
        """Make another batch of the sequences ``rows``."""
        if self._keys is None:
            return
        order = rows.to(self.device)
        with torch.inference_mode(False):
            self._keys = self._keys.index_select(0, order)
            self._values = None if self._values is None else self._values.index_select(0, order)
        if self._starts is not None:
            self._starts = tuple(self._starts[int(i)] for i in rows.tolist())
