"""The sizes of a model that the cost of attention depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from effkit.errors import UserError

__all__ = ["RANK", "ModelShape", "at_least", "check_rank"]

RANK = 128  # the paper's d'


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that attention depends on.

    Args:
        num_layers: Attention layers.
        num_heads: Query heads (H).
        num_kv_heads: Key-value heads (H_G); must divide ``num_heads``.
        head_dim: Dimension of a head (d).

    Raises:
        UserError: If a size is less than 1, or the heads do not divide.
    """

    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_heads", "num_kv_heads", "head_dim"):
            at_least(name, getattr(self, name), 1)
        if self.num_heads % self.num_kv_heads:
            raise UserError(f"num_kv_heads must divide num_heads={self.num_heads}, got {self.num_kv_heads}")

    @classmethod
    def from_config(cls, config: Any) -> ModelShape:
        """Read the sizes from a transformers configuration, or from anything with its attributes.

        Args:
            config: Of a decoder, or of a model with one in it.

        Raises:
            UserError: If a size is missing.
        """
        text: Any = config.get_text_config() if hasattr(config, "get_text_config") else config
        missing = [name for name in ("num_hidden_layers", "num_attention_heads") if getattr(text, name, None) is None]
        head_dim = getattr(text, "head_dim", None)
        if head_dim is None and getattr(text, "hidden_size", None) is None:
            missing.append("hidden_size")
        if missing:
            raise UserError(f"config must have {' and '.join(missing)}, got a {type(config).__name__} without")
        heads = text.num_attention_heads
        return cls(
            num_layers=text.num_hidden_layers,
            num_heads=heads,
            num_kv_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=head_dim or text.hidden_size // heads,
        )

    @property
    def query_dim(self) -> int:
        """Length of a token's queries over all heads (d_H)."""
        return self.num_heads * self.head_dim

    @property
    def key_dim(self) -> int:
        """Length of a token's keys over all heads (d_G)."""
        return self.num_kv_heads * self.head_dim


def check_rank(rank: int, shape: ModelShape) -> None:
    """Refuse a compressed dimension that is none, or larger than what is compressed."""
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= shape.key_dim:
        raise UserError(f"rank must be a whole number in 1..{shape.key_dim} (num_kv_heads * head_dim), got {rank!r}")


def at_least(name: str, value: int, least: int) -> None:
    """Refuse what is not a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name} must be a whole number of at least {least}, got {value!r}")
