"""The layer that is timed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from effkit.errors import UserError

__all__ = ["LayerShape"]


@dataclass(frozen=True)
class LayerShape:
    """Heads of the layer that is timed; the defaults are Llama-3-8B's."""

    num_heads: int = 32
    num_kv_heads: int = 8
    head_dim: int = 128

    def __post_init__(self) -> None:
        if min(dataclasses.astuple(self)) < 1 or self.num_heads % self.num_kv_heads:
            raise UserError(
                f"heads must be positive and num_kv_heads divide num_heads, got {dataclasses.astuple(self)}"
            )

    @property
    def key_dim(self) -> int:
        """Numbers in the keys of a token (d_G)."""
        return self.num_kv_heads * self.head_dim
