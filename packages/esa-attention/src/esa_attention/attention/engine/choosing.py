"""Which middle tokens the blocks of a chunk read, row by row in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from esa_attention.attention.cache.layer import ESALayer, LastChoice
from esa_attention.attention.engine import baselines
from esa_attention.attention.segments import Segments
from esa_attention.compression.folding import fold_queries
from esa_attention.ops.index_products import decode_scores, decode_scores_int8
from esa_attention.ops.scoring import chunk_scores
from esa_attention.ops.selection_cpu import select
from esa_attention.ops.selection_torch import select_topk

__all__ = ["Choices", "choose_tokens"]

# Tokens that each block of queries reads from the middle (absolute, ascending): [(first query, end, indices)].
Choices = list[tuple[int, int, Tensor]]


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
        candidates = [select(scores, config.proximity, take, config.cpu_forms) for scores in own]
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
    index, forms = layer.index, layer.config.cpu_forms
    if query_index.shape[0] == 1:
        if index is not None and index.scale is not None:
            rows, scale = index.keys.data[row, begin:end], index.scale.data[row, begin:end]
            return decode_scores_int8(query_index[0], rows, scale, forms)[None]
        rows = layer.index_rows(row, begin, end)
        return decode_scores(query_index[0].to(rows.device), rows, forms)[None]
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
    best = select_topk(spread, config.num_selected, exact)
    return candidates[best.to(candidates.device)]
