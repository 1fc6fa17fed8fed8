"""The cache of a model: its layers, and what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache

from effkit.errors import UserError, choose
from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.cache.padding import padding_starts
from esa_attention.attention.cache.workspace import Workspace
from esa_attention.attention.rope import RopeTables
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig

__all__ = ["ESACache"]

# What only the selection asks for, and not what is stored.
RECONFIGURABLE = (
    *("num_initial", "num_selected", "proximity", "selection", "selection_block", "rerank_factor", "reuse_threshold"),
    "backend",
)


class ESACache(Cache):
    """All layers of a model; made by :meth:`esa_attention.integration.handle.ESAHandle.new_cache`.

    Args:
        config: Sizes and options.
        compressors: One a layer.
        tables: Rotary tables of the model.
        reserve: Tokens to make room for at once, so that nothing grows on the way.

    Raises:
        UserError: If there is no layer.
    """

    def __init__(
        self, config: ESAConfig, compressors: Sequence[QKCompressor], tables: RopeTables, reserve: int = 0
    ) -> None:
        if not compressors:
            raise UserError("compressors is empty, ESACache needs one a layer")
        self.config = config
        self.workspace = Workspace()
        layers: list[Any] = [ESALayer(config, c, tables, reserve, self.workspace) for c in compressors]
        super().__init__(layers=layers)
        self.layers: list[Any]
        self.made_for: object = None  # the handle whose model it belongs to
        self._start: tuple[Tensor, list[int]] | None = None

    def reconfigure(self, **changes: Any) -> None:
        """Change how the next tokens are selected, over what is cached already.

        Reading a long context is what takes time; sizes and orders of the selection can be compared on one reading.

        Args:
            **changes: Fields of the configuration, of those in :data:`RECONFIGURABLE`.

        Raises:
            UserError: If a field decides what is stored, or a value is out of range.
        """
        for name in changes:
            choose("field that can be changed", name, RECONFIGURABLE)
        self.config = self.config.replace(**changes)
        for layer in self.layers:
            layer.config = self.config
            layer.derived.choices.clear()

    def starts(self, mask: Tensor | None, batch: int, length: int) -> list[int] | None:
        """First real token of every sequence; ``None`` where nothing is padded.

        Args:
            mask: Padding mask ``(B, S)`` of this forward pass, the same object for all layers.
            batch: Sequences.
            length: Tokens held, the new ones included.

        Raises:
            UserError: If padding stands elsewhere than on the left, or the mask does not fit.
        """
        if mask is None:
            return None
        if self._start is None or self._start[0] is not mask:
            self._start = (mask, padding_starts(mask, batch, length))
        starts = self._start[1]
        return starts if any(starts) else None

    def memory(self) -> dict[str, int]:
        """Bytes allocated, by part, and in ``total``; ``used`` are those of tokens held."""
        parts: dict[str, int] = {"workspace": self.workspace.nbytes}
        for layer in self.layers:
            for name, size in layer.memory().items():
                parts[name] = parts.get(name, 0) + size
        parts["total"] = sum(size for name, size in parts.items() if name != "used")
        return parts
