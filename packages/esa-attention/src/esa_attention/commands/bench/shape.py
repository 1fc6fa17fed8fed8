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
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise UserError(f"layer.{name}={value!r} must be a whole number of at least 1")
        if self.num_heads % self.num_kv_heads:
            raise UserError(f"layer.num_kv_heads={self.num_kv_heads} must divide layer.num_heads={self.num_heads}")

    @property
    def key_dim(self) -> int:
        """Numbers in the keys of a token (d_G)."""
        return self.num_kv_heads * self.head_dim
