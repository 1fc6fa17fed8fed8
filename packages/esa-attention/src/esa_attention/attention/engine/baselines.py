"""Other ways to choose middle tokens, on the same cache and with the same far positions, for fair comparison.

They differ from their papers where ESA's frame asks for it: one choice a layer instead of one a head, chunked reading
of the prompt, the same number of tokens. What differs is said at each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effkit.errors import UserError
from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.segments import Segments
from esa_attention.compression.folding import fold_queries
from esa_attention.ops.selection_torch import select_topk

__all__ = ["choose"]


def choose(layer: ESALayer, row: int, turned: Tensor, cut: Segments) -> Tensor:
    """Middle tokens a chunk reads under ``config.method``; absolute, ascending.

    Args:
        layer: The cache.
        row: Sequence of the batch.
        turned: Queries ``(H, T, D)`` at the far position.
        cut: Segments of the chunk.
    """
    method = layer.config.method
    if method == "sinks_local":
        # StreamingLLM and LM-Infinite: initial and local tokens only.
        return torch.empty(0, dtype=torch.long, device=layer.device)
    if cut.num_middle <= layer.config.num_selected:
        return torch.arange(cut.initial_end, cut.local, device=layer.device)
    assert layer.store is not None
    folded = fold_queries(turned[None], layer.store.data.shape[3])[0].to(
        torch.promote_types(turned.dtype, torch.float32)
    )
    if method == "quest_pages":
        return _whole_blocks(_quest_scores(layer, row, folded, cut), layer.config.page_size, layer, cut)
    assert method == "infllm_blocks", method
    return _whole_blocks(_infllm_scores(layer, row, folded, cut), layer.config.block_size, layer, cut)


def _whole_blocks(scores: Tensor, size: int, layer: ESALayer, cut: Segments) -> Tensor:
    """Tokens of the best blocks, as many blocks as fit into ``num_selected`` tokens."""
    blocks = select_topk(scores, max(1, layer.config.num_selected // size))
    tokens = (blocks[:, None] * size + torch.arange(size, device=blocks.device)).flatten() + cut.initial_end
    return tokens[tokens < cut.local].to(layer.device)


def _grown(layer: ESALayer, name: str, row: int, size: int, cut: Segments, summarise: object) -> list[Tensor]:
    """Summaries of all blocks of the middle: of whole ones kept, of the last, incomplete one made anew.

    The middle begins at the same token as soon as there is one, so blocks do not move.
    """
    assert callable(summarise)
    kept: list[Tensor] = layer.derived.blocks.get((name, row), [])
    whole = cut.num_middle // size
    done = kept[0].shape[0] if kept else 0
    if whole > done:
        fresh = summarise(cut.initial_end + done * size, cut.initial_end + whole * size)
        kept = [torch.cat((old, new)) for old, new in zip(kept, fresh, strict=True)] if kept else fresh
        layer.derived.blocks[name, row] = kept
    parts = [part[:whole] for part in kept]
    if cut.num_middle % size:
        rest = summarise(cut.initial_end + whole * size, cut.local)
        parts = [torch.cat((part, new)) for part, new in zip(parts, rest, strict=True)] if parts else rest
    return parts


def _keys(layer: ESALayer, row: int, begin: int, end: int) -> Tensor:
    """Unrotated keys of tokens as float rows ``(N, K * D)`` on the device."""
    assert layer.store is not None
    rows = layer.store.data[row, begin:end, 0].flatten(1).to(layer.device)
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


def _pages(rows: Tensor, size: int) -> list[Tensor]:
    """Rows in groups of ``size``; the last may be shorter."""
    whole = rows.shape[0] // size * size
    groups = list(rows[:whole].reshape(-1, size, rows.shape[1])) if whole else []
    return groups + ([rows[whole:]] if whole < rows.shape[0] else [])


def _quest_scores(layer: ESALayer, row: int, folded: Tensor, cut: Segments) -> Tensor:
    """Quest: no key of a page can score above the sum over channels of ``max(q * min, q * max)``.

    Quest chooses a head at a time and while decoding only; here the heads of a group are summed (so the bound is that
    of the summed score), and a chunk takes each page's best query as in Eq. 4.
    """
    size = layer.config.page_size

    def summarise(begin: int, end: int) -> list[Tensor]:
        groups = _pages(_keys(layer, row, begin, end), size)
        return [torch.stack([g.amin(dim=0) for g in groups]), torch.stack([g.amax(dim=0) for g in groups])]

    least, most = _grown(layer, "quest", row, size, cut, summarise)
    bound = folded.clamp(min=0) @ most.T + folded.clamp(max=0) @ least.T
    return (bound - bound.amax(dim=1, keepdim=True)).amax(dim=0)


def _infllm_scores(layer: ESALayer, row: int, folded: Tensor, cut: Segments) -> Tensor:
    """InfLLM: the mean query of the chunk against the mean of each block's representative keys.

    Representatives are the keys that the ``num_local`` queries after them scored highest on average. InfLLM does so a
    head at a time; here scores are summed over heads.
    """
    size, reach = layer.config.block_size, layer.config.num_local
    queries = layer.queries
    if queries is None or queries.length != layer.get_seq_length():
        raise UserError(
            "method=infllm_blocks needs the queries of all cached tokens; read the sequence through one cache"
        )

    def summarise(begin: int, end: int) -> list[Tensor]:
        keys = _keys(layer, row, begin, end)
        # Sums of queries begin+1 .. end-1+reach, all of which are known once the tokens have left the local part.
        window = queries.data[row, begin + 1 : end + reach].double()
        sums = torch.cat((window.new_zeros(1, window.shape[1]), window.cumsum(dim=0)))
        after = sums[reach : reach + end - begin] - sums[: end - begin]
        local = (after * keys.double()).sum(dim=1)
        means = []
        for scores, group in zip(_pages(local[:, None], size), _pages(keys, size), strict=True):
            best = select_topk(scores[:, 0], layer.config.block_representatives)
            means.append(group[best].mean(dim=0))
        return [torch.stack(means)]

    (means,) = _grown(layer, "infllm", row, size, cut, summarise)
    return means @ folded.mean(dim=0)
