"""ESA on tensors, without a model and a cache of the caller's: what notebooks and tests call."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from effkit.errors import UserError
from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.engine.step import attend_layer
from esa_attention.attention.rope import RopeTables
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig

__all__ = ["esa_decode", "esa_prefill"]


def esa_prefill(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    config: ESAConfig,
    tables: RopeTables,
    compressor: QKCompressor | None = None,
    *,
    scaling: float | None = None,
    start: Sequence[int] | None = None,
) -> Tensor:
    """Attention of the last ``T`` of ``S`` tokens as ESA computes it, chunk by chunk (section 3 of the paper).

    Args:
        query: Unrotated queries of the last ``T`` tokens, ``(B, H, T, D)``.
        key: Unrotated keys of all tokens, ``(B, K, S, D)``.
        value: Values of all tokens, ``(B, K, S, D)``.
        config: Sizes and options.
        tables: Rotary tables of the model.
        compressor: Maps of the layer; exact scores if not given.
        scaling: Factor on attention scores; ``D ** -0.5`` if not given.
        start: First real token of every row, where padding stands on the left.

    Returns:
        ``(B, H, T, D)``; 0 for padding.

    Raises:
        UserError: If shapes disagree.
    """
    if query.ndim != 4 or key.ndim != 4 or key.shape != value.shape or query.shape[0] != key.shape[0]:
        raise UserError(
            "query must be (B, H, T, D) and key and value (B, K, S, D), got "
            f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}"
        )
    batch, heads, tokens, dim = query.shape
    if heads % key.shape[1] or dim != key.shape[3] or tokens > key.shape[2] or tokens < 1:
        raise UserError(
            f"query {tuple(query.shape)} does not fit keys {tuple(key.shape)}: heads must be a multiple, D the same, "
            "T at most S"
        )
    if start is not None and (len(start) != batch or not all(0 <= int(s) <= key.shape[2] for s in start)):
        raise UserError(f"start must hold {batch} numbers in 0..{key.shape[2]}, got {list(start)}")
    layer = ESALayer(config, compressor or QKCompressor.exact(key.shape[1], dim), tables, reserve=key.shape[2])
    layer.update(key, value)
    scaling = dim**-0.5 if scaling is None else scaling
    return attend_layer(layer, query, scaling, None if start is None else [int(s) for s in start])


def esa_decode(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    config: ESAConfig,
    tables: RopeTables,
    compressor: QKCompressor | None = None,
    *,
    scaling: float | None = None,
    start: Sequence[int] | None = None,
) -> Tensor:
    """:func:`esa_prefill` for the one token of a decoding step: ``query`` is ``(B, H, 1, D)``.

    Raises:
        UserError: If shapes disagree, or the query has several tokens.
    """
    if query.ndim != 4 or query.shape[2] != 1:
        raise UserError(f"query must have the shape (B, H, 1, D), got {tuple(query.shape)}; use esa_prefill")
    return esa_prefill(query, key, value, config, tables, compressor, scaling=scaling, start=start)
