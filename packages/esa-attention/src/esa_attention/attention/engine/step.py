"""One step of ESA over a cached layer (section 3.9 of the fact sheet), row by row in torch.

A step gets the unrotated queries of tokens whose keys are in the cache already. It splits them into chunks, finds for
each the middle tokens worth reading, attends to (initial, selected) with far positions and to (local, current) with
true ones, and merges the two by their lse.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effkit.errors import UserError
from esa_attention.attention.cache.layer import ESALayer, LastChoice
from esa_attention.attention.engine import baselines
from esa_attention.attention.functional import fold_queries, merge_attention_states
from esa_attention.attention.rope import RopeTables
from esa_attention.attention.segments import Segments, segments
from esa_attention.compression.compressor import QKCompressor
from esa_attention.config import ESAConfig
from esa_attention.ops.attention_torch import attend
from esa_attention.ops.decode_cpu import PIECE, attend_decode, decode_runs
from esa_attention.ops.scoring import chunk_scores, decode_scores, decode_scores_int8, select

__all__ = ["Choices", "attend_layer", "attend_stateless"]

# Tokens that each block of queries reads from the middle (absolute, ascending): [(first query, end, indices)].
Choices = list[tuple[int, int, Tensor]]


def attend_layer(layer: ESALayer, query: Tensor, scaling: float, starts: Sequence[int] | None = None) -> Tensor:
    """Attention of the last ``T`` cached tokens of every row.

    Args:
        layer: The cache, keys of these tokens included.
        query: Unrotated queries ``(B, H, T, D)``.
        scaling: Factor on attention scores.
        starts: First real token of every row; 0 if not given.

    Returns:
        ``(B, H, T, D)``; 0 for padding.
    """
    if layer.queries is not None:
        layer.queries.extend(query.shape[2]).copy_(fold_queries(query, layer.queries.data.shape[2] // query.shape[3]))
    if layer.config.backend == "reference":
        from esa_attention.reference import esa_reference

        assert layer.keys is not None
        assert layer.values is not None
        what = (query, layer.keys, layer.values, layer.config, layer.tables, layer.compressor)
        return esa_reference(*what, scaling=scaling, start=starts).to(query.dtype)
    from esa_attention.ops.dispatch import triton_runs

    if triton_runs(layer, query):
        from esa_attention.attention.engine.step_triton import attend_layer_triton

        return attend_layer_triton(layer, query, scaling, starts)
    total = layer.get_seq_length()
    # Every token of an unpadded row is written below.
    out = torch.empty_like(query) if starts is None else torch.zeros_like(query)
    for row in range(query.shape[0]):
        first = 0 if starts is None else starts[row]
        current = max(first, total - query.shape[2])
        while current < total:
            end = min(current + layer.config.chunk_size, total)
            low, high = current - total + query.shape[2], end - total + query.shape[2]
            out[row, :, low:high] = _chunk(layer, row, query[row, :, low:high], current, first, scaling)
            current = end
    return out


def _chunk(layer: ESALayer, row: int, query: Tensor, current: int, start: int, scaling: float) -> Tensor:
    """Attention ``(H, T, D)`` of one chunk of one row."""
    config = layer.config
    end = current + query.shape[1]
    if config.method == "full" or end - start <= config.dense_until:
        return _local(layer, row, query, Segments(start, start, start, current, end), scaling)[0]
    cut = segments(current, end, config.num_initial, config.num_local, start)
    if cut.initial_end == cut.start and cut.num_middle == 0:
        return _local(layer, row, query, cut, scaling)[0]
    turned = layer.tables.rotate_far(query, config.w)
    choices = choose_tokens(layer, row, turned, cut)
    for watcher in layer.watchers:
        watcher(layer.layer_idx, row, cut, choices)
    assert layer.store is not None
    store = layer.store.data[row]
    if decode_runs(query, store):
        keys, values, position = layer.window(row).read(store, cut.local, cut.end)
        near_query = layer.tables.rotate(query, position + cut.current - cut.local)
        initial = torch.arange(cut.start, cut.initial_end)
        far_indices = torch.cat((initial, choices[0][2]))
        if far_indices.shape[0] == 0:
            return _local(layer, row, query, cut, scaling)[0]
        piece = layer.workspace.get("piece", (PIECE, *store.shape[2:]), store.dtype, store.device)
        return attend_decode(turned, store, far_indices, near_query, keys, values, scaling, piece)
    near, near_lse = _local(layer, row, query, cut, scaling)
    far, far_lse = _far(layer, row, turned, cut, choices, scaling)
    return merge_attention_states([near, far], [near_lse, far_lse])[0]


def _far(
    layer: ESALayer, row: int, turned: Tensor, cut: Segments, choices: Choices, scaling: float
) -> tuple[Tensor, Tensor]:
    """Attention over initial and chosen tokens, all at one distance: output ``(H, T, D)``, lse ``(H, T)``."""
    outs, lses = [], []
    for low, high, chosen in choices:
        keys, values = far_tokens(layer, row, cut, chosen)
        out, lse = attend(turned[None, :, low:high], keys[None], values[None], scaling)
        outs.append(out[0])
        lses.append(lse[0])
    return (outs[0], lses[0]) if len(outs) == 1 else (torch.cat(outs, dim=1), torch.cat(lses, dim=1))


def _local(layer: ESALayer, row: int, query: Tensor, cut: Segments, scaling: float) -> tuple[Tensor, Tensor]:
    """Attention over local and current tokens at true distances: output ``(H, T, D)``, lse ``(H, T)``."""
    assert layer.store is not None
    keys, values, position = layer.window(row).read(layer.store.data[row], cut.local, cut.end)
    past = cut.current - cut.local
    turned = layer.tables.rotate(query, position + past)[None]
    keys, values = keys[None], values[None]
    if query.shape[1] == 1:
        out, lse = attend(turned, keys, values, scaling)
        return out[0], lse[0]
    # The local tokens are all seen by all queries; only the chunk itself is a triangle.
    outs, lses = [], []
    if past:
        out, lse = attend(turned, keys[:, :, :past], values[:, :, :past], scaling)
        outs, lses = [out[0]], [lse[0]]
    out, lse = attend(turned, keys[:, :, past:], values[:, :, past:], scaling, causal=True)
    return merge_attention_states([*outs, out[0]], [*lses, lse[0]])


def far_tokens(layer: ESALayer, row: int, cut: Segments, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Unrotated keys and values ``(K, N, D)`` of initial and chosen tokens, gathered into memory that is kept."""
    assert layer.store is not None
    store = layer.store.data[row]
    num_initial = cut.initial_end - cut.start
    shape = (num_initial + chosen.shape[0], *store.shape[1:])
    host = layer.workspace.get("far", shape, store.dtype, store.device, layer.store.pin)
    host[:num_initial] = store[cut.start : cut.initial_end]
    if chosen.shape[0]:
        torch.index_select(store, 0, chosen.to(store.device), out=host[num_initial:])
    far = host
    if layer.device != store.device:
        far = layer.workspace.get("far_device", shape, store.dtype, layer.device)
        far.copy_(host, non_blocking=True)
        torch.cuda.current_stream(layer.device).synchronize()  # the pinned rows are written again by the next layer
    return far[:, 0].transpose(0, 1), far[:, 1].transpose(0, 1)


def choose_tokens(layer: ESALayer, row: int, turned: Tensor, cut: Segments) -> Choices:
    """Which middle tokens the blocks of a chunk read.

    Args:
        layer: The cache.
        row: Sequence of the batch.
        turned: Queries ``(H, T, D)`` at the far position.
        cut: Segments of the chunk.
    """
    config, num_queries = layer.config, turned.shape[1]
    if config.method != "esa":
        return [(0, num_queries, baselines.choose(layer, row, turned, cut))]
    if cut.num_middle <= config.num_selected:
        return [(0, num_queries, torch.arange(cut.initial_end, cut.local, device=layer.device))]
    block = config.choosing_block
    query_index = layer.compressor.compress_query(turned[None])[0]
    if (
        config.selection == "reuse"
        and num_queries == 1
        and (kept := _kept(layer, row, query_index[0], cut)) is not None
    ):
        return [(0, 1, kept)]
    k = config.num_selected
    take = config.rerank_factor * k if config.selection == "rerank" else k
    if take >= cut.num_middle:
        candidates = [torch.arange(cut.num_middle)] * -(-num_queries // block)
    else:
        own = _scores(layer, row, query_index, cut, block)
        candidates = [select(scores, config.proximity, take) for scores in own]
    choices: Choices = []
    for number, chosen in enumerate(candidates):
        low, high = number * block, min((number + 1) * block, num_queries)
        if config.selection == "rerank":
            chosen = _reranked(layer, row, turned[:, low:high], chosen, cut)
        choices.append((low, high, chosen.to(layer.device) + cut.initial_end))
    if config.selection == "reuse" and num_queries == 1:
        layer.derived.choices[row] = LastChoice(query_index[0].clone(), choices[0][2])
    return choices


def _scores(layer: ESALayer, row: int, query_index: Tensor, cut: Segments, block: int) -> Tensor:
    """Own scores ``(blocks, M)`` of the middle tokens."""
    begin, end = cut.initial_end, cut.local
    index = layer.index
    if query_index.shape[0] == 1:
        if index is not None and index.scale is not None:
            rows, scale = index.keys.data[row, begin:end], index.scale.data[row, begin:end]
            return decode_scores_int8(query_index[0], rows, scale)[None]
        rows = layer.index_rows(row, begin, end)
        return decode_scores(query_index[0].to(rows.device), rows)[None]
    rows = layer.index_rows(row, begin, end)
    return chunk_scores(query_index.to(rows.device), rows, block)


def _kept(layer: ESALayer, row: int, query_index: Tensor, cut: Segments) -> Tensor | None:
    """The last choice, if the compressed query points where it did (``selection="reuse"``)."""
    last = layer.derived.choices.get(row)
    if last is None or int(last.indices[-1]) >= cut.local:
        return None
    cosine = torch.nn.functional.cosine_similarity(query_index, last.query, dim=0)
    return last.indices if float(cosine) > layer.config.reuse_threshold else None


def _reranked(layer: ESALayer, row: int, turned: Tensor, candidates: Tensor, cut: Segments) -> Tensor:
    """The best of many candidates by exact scores; reads only their keys (``selection="rerank"``)."""
    assert layer.store is not None
    config, store = layer.config, layer.store.data[row]
    keys = store[:, 0].index_select(0, (candidates + cut.initial_end).to(store.device)).to(layer.device)
    folded = fold_queries(turned[None], keys.shape[1])[0]
    wide = torch.promote_types(keys.dtype, torch.float32)
    exact = chunk_scores(folded.to(wide), keys.flatten(1).to(wide), turned.shape[1])[0]
    spread = exact.clone()
    # Candidates are ascending, so those within `proximity` tokens are within as many places of the list.
    for step in range(1, min(config.proximity, candidates.shape[0] - 1) + 1):
        close = candidates[step:] - candidates[:-step] <= config.proximity
        close = close.to(exact.device)
        spread[step:] = torch.where(close, torch.maximum(spread[step:], exact[:-step]), spread[step:])
        spread[:-step] = torch.where(close, torch.maximum(spread[:-step], exact[step:]), spread[:-step])
    from esa_attention.attention.functional import select_topk

    best = select_topk(spread, config.num_selected, exact)
    return candidates[best.to(candidates.device)]


def attend_stateless(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    config: ESAConfig,
    tables: RopeTables,
    compressor: QKCompressor | None,
    *,
    scaling: float | None,
    start: Sequence[int] | None,
) -> Tensor:
    """See :func:`esa_attention.attention.functional.esa_prefill`."""
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
