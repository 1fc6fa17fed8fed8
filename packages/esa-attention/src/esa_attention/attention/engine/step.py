"""One step of ESA over a cached layer (section 3.9 of the fact sheet), by the backend that fits.

A step gets the unrotated queries of tokens whose keys are in the cache already.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.engine.step_dense import FullAttention, attend_dense, dense_tokens, sdpa
from esa_attention.attention.engine.step_torch import attend_layer_torch
from esa_attention.attention.engine.step_triton import attend_layer_triton
from esa_attention.compression.folding import fold_queries
from esa_attention.ops.checks import check_finite
from esa_attention.ops.dispatch import triton_runs
from esa_attention.reference import esa_reference

__all__ = ["attend_layer"]


def attend_layer(
    layer: ESALayer,
    query: Tensor,
    scaling: float,
    starts: Sequence[int] | None = None,
    full: FullAttention = sdpa,
) -> Tensor:
    """Attention of the last ``T`` cached tokens of every row.

    Args:
        layer: The cache, keys of these tokens included.
        query: Unrotated queries ``(B, H, T, D)``.
        scaling: Factor on attention scores.
        starts: First real token of every row; 0 if not given.
        full: What computes full attention while a row is short (``dense_until``).

    Returns:
        ``(B, H, T, D)``; 0 for padding.

    Raises:
        UserError: If a query is NaN or infinite. Where that is not looked at (``check_finite``), its output is NaN.
    """
    new = query.shape[2]
    if layer.checks(new):
        check_finite("the model", query=query)
    if layer.queries is not None:
        layer.queries.extend(new).copy_(fold_queries(query, layer.queries.data.shape[2] // query.shape[3]))
    counts, begin = dense_tokens(layer, new, starts), layer.get_seq_length() - new
    run = _reference if layer.config.backend == "reference" else attend_dense
    dense = min(counts)
    if dense == max(counts):  # the same of all rows
        if dense == new:
            return run(layer, query, scaling, starts, end=begin + new, full=full)
        if dense == 0:
            layer.derived.dense = None
            return _choosing(layer, query, scaling, starts)
        head = run(layer, query[:, :, :dense], scaling, starts, end=begin + dense, full=full)
        return torch.cat((head, _choosing(layer, query[:, :, dense:], scaling, starts)), dim=2)
    out = torch.empty_like(query)
    for row, dense in enumerate(counts):
        own, rows = query[row : row + 1], slice(row, row + 1)
        first = None if starts is None else starts[rows]
        if dense:
            head = own[:, :, :dense]
            out[rows, :, :dense] = run(layer, head, scaling, starts, end=begin + dense, rows=rows, full=full)
        if dense < new:
            out[rows, :, dense:] = _choosing(layer, own[:, :, dense:], scaling, first, row)
    return out


def _choosing(
    layer: ESALayer, query: Tensor, scaling: float, starts: Sequence[int] | None, first_row: int = 0
) -> Tensor:
    """Attention of tokens that choose what they read, of the rows from ``first_row`` on."""
    if layer.config.backend == "reference":
        rows = slice(first_row, first_row + query.shape[0])
        return _reference(layer, query, scaling, starts, end=layer.get_seq_length(), rows=rows, chooses=True)
    run = attend_layer_triton if triton_runs(layer.facts(query)) else attend_layer_torch
    return run(layer, query, scaling, starts, first_row)


def _reference(
    layer: ESALayer,
    query: Tensor,
    scaling: float,
    starts: Sequence[int] | None,
    *,
    end: int,
    rows: slice = slice(None),
    full: FullAttention = sdpa,
    chooses: bool = False,
) -> Tensor:
    """The naive loops; full attention is a local part without an end."""
    assert layer.keys is not None
    assert layer.values is not None
    keys, values = (t[rows, :, :end] for t in (layer.keys, layer.values))
    config = layer.config if chooses else layer.config.replace(num_local=end, method="esa")
    if starts is not None and not chooses:
        starts = starts[rows]
    what = (query, keys, values, config, layer.tables, layer.compressor)
    return esa_reference(*what, scaling=scaling, start=starts).to(query.dtype)
