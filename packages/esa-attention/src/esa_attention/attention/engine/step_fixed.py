"""A decoding step of which nothing depends on how long the sequence is, as one operator of torch.

It appends the new token at the place that a tensor names, scores, selects and attends, with shapes that follow from the
room in the cache alone. No value is read back and nothing is copied from the host, so a CUDA graph of it can be
replayed; and :func:`torch.compile` sees one operator with known effects. By kernels where Triton runs, else by torch's
operators over the whole room, masked.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from esa_attention.attention.cache.fixed import FixedState
from esa_attention.attention.cache.layer import ESALayer
from esa_attention.compression.folding import fold_keys
from esa_attention.config import ESAConfig
from esa_attention.ops.decode_fixed import Sizes, attend_fixed_torch
from esa_attention.ops.decode_fixed_triton import decode_fixed_triton
from esa_attention.ops.dispatch import triton_runs
from esa_attention.ops.index_rows import quantised
from esa_attention.ops.prepare_triton import can_prepare

__all__ = ["attend_fixed", "can_replay", "decode_step", "fixed_config", "step_arguments", "step_tables"]


@torch.library.custom_op("esa_attention::decode_step", mutates_args=("store", "index", "index_scale"))
def decode_step(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    store: Tensor,
    index: Tensor | None,
    index_scale: Tensor | None,
    query_map: Tensor | None,
    key_map: Tensor | None,
    query_bias: Tensor | None,
    key_bias: Tensor | None,
    start: Tensor,
    length: Tensor,
    cos: Tensor,
    sin: Tensor,
    num_initial: int,
    num_selected: int,
    num_local: int,
    proximity: int,
    far_position: int,
    far_factor: float,
    scaling: float,
    use_triton: bool,
) -> Tensor:
    """Append one token to a layer, and attend with it.

    Args:
        query: Unrotated ``(B, H, 1, D)``.
        key: ``(B, K, 1, D)``.
        value: ``(B, K, 1, D)``.
        store: Keys and values ``(B, capacity, 2, K, D)``; written at ``length - 1``.
        index: Compressed keys ``(B, capacity, R)``; written; ``None`` where the keys are the index.
        index_scale: ``(B, capacity)`` of an int8 index; written.
        query_map: ``(R, K * D)`` on folded queries, or ``(R, H * D)`` on all heads; ``None`` for exact scores.
        key_map: ``(R, K * D)``.
        query_bias: ``(R,)``.
        key_bias: ``(R,)``.
        start: First real token of every row ``(B,)`` int64.
        length: Tokens with the new one, ``(1,)`` int64.
        cos: Cosines ``(positions, rotary_dim / 2)``.
        sin: Sines.
        num_initial: l_I.
        num_selected: k.
        num_local: l_L.
        proximity: eps.
        far_position: w.
        far_factor: Factor on the rotated dimensions of far queries.
        scaling: Factor on attention scores.
        use_triton: By kernels, where they do what is asked for.

    Returns:
        ``(B, H, 1, D)``.
    """
    sizes = Sizes(num_initial, num_selected, num_local, proximity, far_position, far_factor, scaling)
    cached = (query, key, value, store, index, index_scale, query_map, key_map, query_bias, key_bias)
    if use_triton and can_prepare(store, index, index_scale, query_map):
        return decode_fixed_triton(*cached, start, length, cos, sin, sizes)
    where = length - 1
    store.index_copy_(1, where, torch.stack((key, value), dim=2).permute(0, 3, 2, 1, 4))
    if index is not None:
        rows = fold_keys(key)
        if key_map is not None:
            rows = torch.nn.functional.linear(rows.to(key_map.dtype), key_map, key_bias)
        if index_scale is None:
            index.index_copy_(1, where, rows.to(index.dtype))
        else:
            digits, scale = quantised(rows)
            index.index_copy_(1, where, digits)
            index_scale.index_copy_(1, where, scale)
    return attend_fixed_torch(query, store, index, index_scale, query_map, query_bias, start, length, cos, sin, sizes)


@decode_step.register_fake
def _decode_step_shape(query: Tensor, *args: object) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


def step_tables(layer: ESALayer, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of all positions that a step needs, ``(positions, rotary_dim)``."""
    return layer.tables.tables(max(layer.config.num_local, layer.config.w) + 1, device)


def fixed_config(config: ESAConfig) -> bool:
    """Whether a step of fixed form computes what a configuration asks for."""
    usual = config.method == "esa" and config.selection in ("paper", "strict_causal")
    return usual and not config.offload and config.backend != "reference"


def can_replay(layer: ESALayer) -> bool:
    """Whether the fixed form of a step is as fast as its plain one: kernels have it, or there are none anyway."""
    assert layer.store is not None
    if not triton_runs(layer.facts(layer.store.data)):
        return True
    index = layer.index
    scale = None if index is None else index.scale
    return can_prepare(
        layer.store.data,
        None if index is None else index.keys.data,
        None if scale is None else scale.data,
        layer.compressor.query_weight,
    )


def step_arguments(layer: ESALayer, state: FixedState) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What :func:`decode_step` takes of a layer: between query, key, value and the scaling, and after it."""
    assert layer.store is not None
    config, tables, maps, index = layer.config, layer.tables, layer.compressor, layer.index
    cos, sin = (t[:, : tables.rotary_dim // 2] for t in step_tables(layer, state.length.device))
    scale = None if index is None else index.scale
    tensors = (
        layer.store.data,
        None if index is None else index.keys.data,
        None if scale is None else scale.data,
        maps.query_weight,
        maps.key_weight,
        maps.query_bias,
        maps.key_bias,
        state.start,
        state.length,
        cos,
        sin,
    )
    sizes = (config.num_initial, config.num_selected, config.num_local, config.proximity, config.w)
    return (*tensors, *sizes, tables.attention_scaling), (triton_runs(layer.facts(layer.store.data)),)


def attend_fixed(
    layer: ESALayer, query: Tensor, key: Tensor, value: Tensor, scaling: float, state: FixedState
) -> Tensor:
    """Append to a layer, and attend, by :func:`decode_step`; there must be room for the token.

    Args:
        layer: The cache, not yet with this token. Its own count of tokens is left as it is.
        query: ``(B, H, 1, D)``.
        key: ``(B, K, 1, D)``.
        value: ``(B, K, 1, D)``.
        scaling: Factor on attention scores.
        state: Where rows begin and end, this token included.
    """
    before, after = step_arguments(layer, state)
    return decode_step(query, key, value, *before, scaling, *after)
