"""Cross-entropy of a long text by position: does a model stay itself beyond its context?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from effkit.errors import UserError
from effkit.progress import report_progress
from effkit.report import Table
from esa_attention.evaluation.tasks.runner import new_cache, step

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

__all__ = ["bucket_edges", "bucket_means", "perplexity_table", "token_nats"]


@torch.no_grad()
def token_nats(
    model: PreTrainedModel, ids: Tensor, *, cache: Cache | None = None, chunk: int = 256, strict: bool = False
) -> Tensor:
    """Negative log-likelihood of every token given all before it.

    The text is read once, in chunks with a cache; memory is one chunk of logits beside the cache.

    Args:
        model: A causal language model in evaluation mode, stock or under ESA.
        ids: ``(n,)``, at least two tokens.
        cache: An empty cache, e.g. ``handle.new_cache()`` under ESA; the stock cache if not given.
        chunk: Tokens of one forward pass. Under ESA all of them share one selection, so that a later token takes part
            in choosing what an earlier one reads: the figure is then not strictly causal.
        strict: One token at a time instead, which is strictly causal and slow.

    Returns:
        ``(n - 1,)`` float32 nats on the CPU; entry ``i`` belongs to token ``i + 1``.

    Raises:
        UserError: If there are fewer than two tokens, ``chunk`` is below 1, or the cache is not empty.
    """
    if len(ids) < 2:
        raise UserError(f"ids must hold at least 2 tokens, got {len(ids)}")
    if chunk < 1:
        raise UserError(f"chunk must be at least 1, got {chunk}")
    cache = new_cache(model) if cache is None else cache
    if cache.get_seq_length():
        raise UserError(f"cache must be empty, got one with {cache.get_seq_length()} tokens")
    size = 1 if strict else chunk
    total = len(ids) - 1
    out = torch.empty(total)
    for start in range(0, total, size):
        stop = min(start + size, total)
        logits = step(model, ids[start:stop], cache, logits_to_keep=0)
        target = ids[start + 1 : stop + 1].to(logits.device)
        out[start:stop] = torch.nn.functional.cross_entropy(logits.float(), target, reduction="none").cpu()
        report_progress(f"{stop:,} of {total:,} tokens", stop / total)
    return out


def bucket_edges(num_tokens: int, first: int = 512) -> list[int]:
    """Doubling edges ``0, first, 2 first, 4 first, ...`` up to ``num_tokens``, which closes the last bucket."""
    if num_tokens < 1 or first < 1:
        raise UserError(f"num_tokens and first must be at least 1, got {num_tokens} and {first}")
    edges = [0]
    edge = first
    while edge < num_tokens:
        edges.append(edge)
        edge *= 2
    return [*edges, num_tokens]


def bucket_means(nats: Tensor, edges: Sequence[int]) -> list[float]:
    """Mean nats per token between neighbouring edges.

    Args:
        nats: ``(n,)`` from :func:`token_nats`.
        edges: Ascending, from 0 or more up to ``n`` at most.

    Raises:
        UserError: If the edges do not ascend or leave the data.
    """
    rising = all(a < b for a, b in pairwise(edges))
    if len(edges) < 2 or not rising or edges[0] < 0 or edges[-1] > len(nats):
        raise UserError(f"edges must ascend within 0..{len(nats)}, got {list(edges)}")
    return [float(nats[a:b].double().mean()) for a, b in pairwise(edges)]


def perplexity_table(curves: Mapping[str, Tensor], edges: Sequence[int] | None = None, *, first: int = 512) -> Table:
    """Mean nats per token by position, one column for every curve.

    Args:
        curves: Name to ``(n,)`` nats; all of one length.
        edges: Bucket edges; doubling from ``first`` on if not given.
        first: First of the doubling edges, e.g. the trained context.

    Raises:
        UserError: If there is no curve, the lengths differ, or the edges do not fit.
    """
    lengths = {len(nats) for nats in curves.values()}
    if len(lengths) != 1:
        raise UserError(f"curves must hold curves of one length, got lengths {sorted(lengths)}")
    (length,) = lengths
    edges = bucket_edges(length, first) if edges is None else edges
    means = [bucket_means(nats, edges) for nats in curves.values()]
    rows = [[edges[i], edges[i + 1], *(mean[i] for mean in means)] for i in range(len(edges) - 1)]
    return Table("Cross-entropy by position, nats per token", ["from", "to", *curves], rows)
