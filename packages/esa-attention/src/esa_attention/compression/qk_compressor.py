"""The two linear maps that make scoring cheap, of one layer (section 3.3 of the paper, Eqs. 5-6).

The score of a middle token, ``f(m; c)``, is a dot product over all heads. Two linear maps take queries and keys to few
dimensions: ``f(m; c) ~ (W_q q + b_q) . (W_k k + b_k)``. Compressed keys are cached; scoring reads nothing else.

Shapes: ``B`` batch, ``H`` query heads, ``K`` key-value heads, ``T`` tokens, ``D`` head dimension, ``R`` compressed
dimension. The paper maps all ``H * D`` dimensions of queries and repeated keys; since keys repeat, ``K * D`` suffice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from esa_attention.compression.folding import fold_keys, fold_queries

__all__ = ["QKCompressor"]

WEIGHTS = ("query_weight", "key_weight", "query_bias", "key_bias")


@dataclass(frozen=True, eq=False)
class QKCompressor:
    """Query and key maps of one layer.

    Args:
        num_kv_heads: Key-value heads (K).
        head_dim: Dimension of a head (D).
        query_weight: ``(R, K * D)``, acting on queries summed over the heads of a group, or the paper's ``(R, H * D)``,
            acting on all heads. ``None`` (both weights): exact scores, nothing is mapped.
        key_weight: ``(R, K * D)``, acting on the cached keys.
        query_bias: ``(R,)`` or ``None``.
        key_bias: ``(R,)`` or ``None``.
        spectrum: Singular values behind the choice of ``R``, largest first, float64; kept for reports.

    Raises:
        UserError: If shapes or types do not fit, or ``R`` exceeds ``K * D`` (exact scores are cheaper then).
    """

    num_kv_heads: int
    head_dim: int
    query_weight: Tensor | None = None
    key_weight: Tensor | None = None
    query_bias: Tensor | None = None
    key_bias: Tensor | None = None
    spectrum: Tensor | None = None

    def __post_init__(self) -> None:
        if self.num_kv_heads < 1 or self.head_dim < 1:
            raise UserError(
                f"num_kv_heads and head_dim must be at least 1, got {self.num_kv_heads} and {self.head_dim}"
            )
        if (self.query_weight is None) != (self.key_weight is None):
            raise UserError("query_weight and key_weight must both be given or both be left out (exact scores)")
        if self.query_weight is None or self.key_weight is None:
            if self.query_bias is not None or self.key_bias is not None:
                raise UserError("query_bias and key_bias need query_weight and key_weight")
            return
        rank = self.key_weight.shape[0] if self.key_weight.ndim == 2 else 0
        if not 1 <= rank <= self.key_dim or self.key_weight.shape[1] != self.key_dim:
            raise UserError(
                f"key_weight must have the shape (R, {self.key_dim}) with R in 1..{self.key_dim}, "
                f"got {tuple(self.key_weight.shape)}"
            )
        query = self.query_weight
        if query.ndim != 2 or query.shape[0] != rank or query.shape[1] == 0 or query.shape[1] % self.key_dim:
            raise UserError(
                f"query_weight must have the shape ({rank}, {self.key_dim}), or ({rank}, H * {self.head_dim}) for all "
                f"heads, got {tuple(query.shape)}"
            )
        for name in ("query_bias", "key_bias"):
            bias = getattr(self, name)
            if bias is not None and tuple(bias.shape) != (rank,):
                raise UserError(f"{name} must have the shape ({rank},), got {tuple(bias.shape)}")
        for name, value in self.tensors().items():
            if not value.is_floating_point():
                raise UserError(f"{name} must be floating point, got {value.dtype}")
        if self.spectrum is not None and self.spectrum.ndim != 1:
            raise UserError(f"spectrum must have one axis, got shape {tuple(self.spectrum.shape)}")

    @classmethod
    def exact(cls, num_kv_heads: int, head_dim: int) -> QKCompressor:
        """Exact scores: folded queries and keys as they are."""
        return cls(num_kv_heads, head_dim)

    @classmethod
    def from_unfolded(
        cls,
        query_weight: Tensor,
        key_weight: Tensor,
        query_bias: Tensor | None = None,
        key_bias: Tensor | None = None,
        *,
        num_heads: int,
        num_kv_heads: int,
    ) -> QKCompressor:
        """Take maps over all query heads, as the paper trains them.

        The key map sees every key ``H / K`` times; the sum of its blocks acts on the key once, with the same result.

        Args:
            query_weight: ``(R, H * D)``.
            key_weight: ``(R, H * D)``, acting on keys repeated for every query head.
            query_bias: ``(R,)``.
            key_bias: ``(R,)``.
            num_heads: ``H``.
            num_kv_heads: ``K``; must divide ``H``.

        Raises:
            UserError: If the heads do not divide the weights.
        """
        if num_kv_heads < 1 or num_heads < 1 or num_heads % num_kv_heads:
            raise UserError(f"num_kv_heads must divide num_heads={num_heads}, got {num_kv_heads}")
        if key_weight.ndim != 2 or key_weight.shape[1] == 0 or key_weight.shape[1] % num_heads:
            raise UserError(f"key_weight must have the shape (R, {num_heads} * D), got {tuple(key_weight.shape)}")
        if query_weight.shape != key_weight.shape:
            raise UserError(
                f"query_weight must have the shape of key_weight, {tuple(key_weight.shape)}, "
                f"got {tuple(query_weight.shape)}"
            )
        rank, width = key_weight.shape
        blocks = key_weight.reshape(rank, num_kv_heads, num_heads // num_kv_heads, width // num_heads)
        return cls(num_kv_heads, width // num_heads, query_weight, blocks.sum(dim=2).flatten(1), query_bias, key_bias)

    @property
    def is_exact(self) -> bool:
        """Whether nothing is mapped."""
        return self.key_weight is None

    @property
    def key_dim(self) -> int:
        """Length of a token's keys over all heads (d_G)."""
        return self.num_kv_heads * self.head_dim

    @property
    def rank(self) -> int:
        """Compressed dimension (R, the paper's d')."""
        return self.key_dim if self.key_weight is None else self.key_weight.shape[0]

    @property
    def is_folded(self) -> bool:
        """Whether the query map acts on queries summed over the heads of a group."""
        return self.query_weight is None or self.query_weight.shape[1] == self.key_dim

    def compress_query(self, query: Tensor) -> Tensor:
        """Compress queries that are rotated to the far position.

        Args:
            query: ``(B, H, T, D)``.

        Returns:
            ``(B, T, R)`` in the type of the weights (of the query, for exact scores).

        Raises:
            UserError: If the heads do not fit.
        """
        if query.ndim != 4 or query.shape[3] != self.head_dim or query.shape[1] % self.num_kv_heads:
            raise UserError(
                f"query must have the shape (B, H, T, {self.head_dim}) with H a multiple of {self.num_kv_heads}, "
                f"got {tuple(query.shape)}"
            )
        if self.query_weight is None:
            return fold_queries(query, self.num_kv_heads)
        wide = query.to(self.query_weight.dtype)
        if not self.is_folded:
            if query.shape[1] * query.shape[3] != self.query_weight.shape[1]:
                raise UserError(
                    f"query must have {self.query_weight.shape[1] // self.head_dim} heads, got {query.shape[1]}"
                )
            return nn.functional.linear(wide.transpose(1, 2).flatten(2), self.query_weight, self.query_bias)
        return self.project_query(fold_queries(wide, self.num_kv_heads))

    def compress_key(self, key: Tensor) -> Tensor:
        """Compress unrotated keys.

        Args:
            key: ``(B, K, T, D)``.

        Returns:
            ``(B, T, R)`` in the type of the weights (of the key, for exact scores).

        Raises:
            UserError: If the heads do not fit.
        """
        if key.ndim != 4 or key.shape[1] != self.num_kv_heads or key.shape[3] != self.head_dim:
            raise UserError(
                f"key must have the shape (B, {self.num_kv_heads}, T, {self.head_dim}), got {tuple(key.shape)}"
            )
        return self.project_key(fold_keys(key))

    def project_query(self, rows: Tensor) -> Tensor:
        """Compress folded queries ``(..., K * D)`` to ``(..., R)``.

        Raises:
            UserError: If the query map acts on all heads and so cannot take folded queries.
        """
        if self.query_weight is None:
            return rows
        if not self.is_folded:
            raise UserError(
                f"query map must act on folded queries of {self.key_dim} dimensions, got one of "
                f"{self.query_weight.shape[1]}; use compress_query"
            )
        return nn.functional.linear(rows.to(self.query_weight.dtype), self.query_weight, self.query_bias)

    def project_key(self, rows: Tensor) -> Tensor:
        """Compress rows of keys ``(..., K * D)`` to ``(..., R)``."""
        if self.key_weight is None:
            return rows
        return nn.functional.linear(rows.to(self.key_weight.dtype), self.key_weight, self.key_bias)

    def tensors(self) -> dict[str, Tensor]:
        """Weights and biases that are there, by name."""
        named = {name: getattr(self, name) for name in WEIGHTS}
        return {name: value for name, value in named.items() if value is not None}

    def num_parameters(self) -> int:
        """Entries of weights and biases."""
        return sum(value.numel() for value in self.tensors().values())

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> QKCompressor:
        """A copy on another device or in another type; the spectrum stays as it is."""
        moved = {name: value.to(device=device, dtype=dtype) for name, value in self.tensors().items()}
        return replace(self, **moved)  # type: ignore[arg-type]
