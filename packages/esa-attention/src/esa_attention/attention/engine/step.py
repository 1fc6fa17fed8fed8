"""One step of ESA over a cached layer (section 3.9 of the fact sheet), by the backend that fits.

A step gets the unrotated queries of tokens whose keys are in the cache already.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.engine.step_torch import attend_layer_torch
from esa_attention.attention.engine.step_triton import attend_layer_triton
from esa_attention.compression.folding import fold_queries
from esa_attention.ops.checks import check_finite
from esa_attention.ops.dispatch import StepFacts, triton_runs
from esa_attention.reference import esa_reference

__all__ = ["attend_layer"]


def attend_layer(layer: ESALayer, query: Tensor, scaling: float, starts: Sequence[int] | None = None) -> Tensor:
    """Attention of the last ``T`` cached tokens of every row.

    Args:
        layer: The cache, keys of these tokens included.
        query: Unrotated queries ``(B, H, T, D)``.
        scaling: Factor on attention scores.
        starts: First real token of every row; 0 if not given.

    Returns:
        ``(B, H, T, D)``; 0 for padding.

    Raises:
        UserError: If a query is NaN or infinite. Where that is not looked at (``check_finite``), its output is NaN.
    """
    if layer.checks(query.shape[2]):
        check_finite("the model", query=query)
    if layer.queries is not None:
        layer.queries.extend(query.shape[2]).copy_(fold_queries(query, layer.queries.data.shape[2] // query.shape[3]))
    if layer.config.backend == "reference":
        assert layer.keys is not None
        assert layer.values is not None
        what = (query, layer.keys, layer.values, layer.config, layer.tables, layer.compressor)
        return esa_reference(*what, scaling=scaling, start=starts).to(query.dtype)
    run = attend_layer_triton if triton_runs(_facts(layer, query, starts)) else attend_layer_torch
    return run(layer, query, scaling, starts)


def _facts(layer: ESALayer, query: Tensor, starts: Sequence[int] | None) -> StepFacts:
    """What the choice of a backend depends on."""
    config = layer.config
    # Whether attention is full is asked of every chunk of every row; this is what the first of them sees least of.
    least = layer.get_seq_length() - query.shape[2] + 1 - max(starts or [0])
    return StepFacts(
        backend=config.backend,
        device=query.device,
        dtype=query.dtype,
        method=config.method,
        selection=config.selection,
        proximity=config.proximity,
        offload=config.offload,
        cached=least,
        dense_until=config.dense_until,
    )
