"""One step of ESA over a cached layer by the Triton kernels: whole batches, nothing read back to the host.

The kernels rotate local keys themselves, so no window is kept. Chunks of a call share their boundaries across the
batch; where a row begins inside a call of several chunks, rows are run one by one, because a row's chunks begin at its
first token (and the choice of a chunk depends on where it begins). Under strict selection every token is a step of
decoding: the tokens of a sequence are the rows of a batch, with lengths of their own over the same cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.segments import segments
from esa_attention.ops.attend_triton import decode_attention, prefill_attention
from esa_attention.ops.prefill_triton import chunk_scores
from esa_attention.ops.query_triton import StepQueries, step_queries
from esa_attention.ops.score_triton import decode_scores
from esa_attention.ops.select_triton import select, select_scratch

__all__ = ["attend_layer_triton"]

# Blocks of a chunk that are scored at once: each needs two numbers a token of the cache.
_BLOCKS = 8
# Such numbers of all tokens that are decoded at once, 256 MiB of float32.
_SCORES = 2**25

# Takes the rows of a step from a tensor of the cache.
View = Callable[[Tensor], Tensor]


def attend_layer_triton(
    layer: ESALayer, query: Tensor, scaling: float, starts: Sequence[int] | None, first_row: int = 0
) -> Tensor:
    """See :func:`esa_attention.attention.engine.step.attend_layer`; queries are of the rows from ``first_row`` on."""
    batch, _, new, _ = query.shape
    total, size = layer.get_seq_length(), layer.config.step_size
    begin = total - new
    if size == 1 and new > 1:
        return _decoded(layer, query, scaling, starts or [0] * batch, first_row)
    if starts is not None and new > size and max(starts) > begin:
        out = torch.zeros_like(query)
        for row in range(batch):
            low = max(starts[row] - begin, 0)
            if low < new:
                own = slice(row, row + 1)
                out[own, :, low:] = _call(layer, query[own, :, low:], scaling, [starts[row]], first_row + row)
        return out
    return _call(layer, query, scaling, list(starts) if starts is not None else [0] * batch, first_row)


def _decoded(layer: ESALayer, query: Tensor, scaling: float, starts: Sequence[int], first_row: int) -> Tensor:
    """All new tokens of all rows, each as if it were decoded."""
    assert layer.store is not None
    new, out = query.shape[2], torch.zeros_like(query)
    begin = layer.get_seq_length() - new
    together = max(1, min(512, _SCORES // layer.store.capacity))
    for row, start in enumerate(starts):
        number = first_row + row
        for low in range(max(start - begin, 0), new, together):
            high = min(low + together, new)
            count = high - low

            def view(held: Tensor, number: int = number, count: int = count) -> Tensor:
                return held[number : number + 1].expand(count, *held.shape[1:])

            tokens = query[row, :, low:high].transpose(0, 1)[:, :, None]
            ends = list(range(begin + low + 1, begin + high + 1))
            found = _chunk(layer, view, tokens, scaling, [start] * count, ends, [number] * count)
            out[row, :, low:high] = found[:, :, 0].transpose(0, 1)
    return out


def _call(layer: ESALayer, query: Tensor, scaling: float, starts: list[int], first_row: int) -> Tensor:
    """All chunks of the rows from ``first_row`` on."""
    total, new = layer.get_seq_length(), query.shape[2]
    numbers = list(range(first_row, first_row + len(starts)))
    rows = slice(first_row, first_row + len(starts))
    if new <= layer.config.step_size:
        return _chunk(layer, lambda held: held[rows], query, scaling, starts, [total], numbers)
    out = torch.empty_like(query)
    for low in range(0, new, layer.config.step_size):
        high = min(low + layer.config.step_size, new)
        part, ends = query[:, :, low:high], [total - new + high]
        out[:, :, low:high] = _chunk(layer, lambda held: held[rows], part, scaling, starts, ends, numbers)
    return out


def _chunk(
    layer: ESALayer,
    view: View,
    query: Tensor,
    scaling: float,
    starts: list[int],
    ends: list[int],
    numbers: list[int],
) -> Tensor:
    """Attention of the ``T`` tokens before ``ends`` (one for all rows, or one each) of the rows with these numbers."""
    config, tables = layer.config, layer.tables
    assert layer.store is not None
    new = query.shape[2]
    start = layer.workspace.numbers("starts", starts, query.device)
    length = layer.workspace.numbers("ends", ends, query.device)
    longest = max(config.num_local + new, config.w + 1)
    cos, sin = (t[:, : tables.rotary_dim // 2] for t in tables.tables(longest, query.device))
    queries = step_queries(
        query,
        cos,
        sin,
        start,
        length,
        num_kv_heads=layer.store.data.shape[3],
        num_local=config.num_local,
        far_position=config.w,
        far_factor=tables.attention_scaling,
    )
    selected, count = _choose(layer, view, queries, starts, ends, start, length)
    if layer.watchers:
        _tell(layer, selected, count, starts, ends, new, numbers)
    shared: dict[str, Any] = {
        "scale_far": scaling,
        "scale_local": scaling,
        "num_initial": config.num_initial,
        "num_local": config.num_local,
    }
    kv = view(layer.store.data)
    if new == 1:
        to_heads = (
            queries.far[:, :, 0],
            queries.local[:, :, 0],
            kv,
            selected[:, 0],
            count[:, 0],
            start,
            length,
            cos,
            sin,
        )
        return decode_attention(*to_heads, **shared)[0][:, :, None]
    block = min(config.choosing_block, new)
    return prefill_attention(
        queries.far, queries.local, kv, selected, count, start, length, cos, sin, selection_block=block, **shared
    )[0]


def _choose(
    layer: ESALayer,
    view: View,
    queries: StepQueries,
    starts: list[int],
    ends: list[int],
    start: Tensor,
    length: Tensor,
) -> tuple[Tensor, Tensor]:
    """Selected tokens ``(B, blocks, k)`` and how many are meant ``(B, blocks)``."""
    config = layer.config
    assert layer.store is not None
    batch, new, device = queries.far.shape[0], queries.far.shape[2], queries.far.device
    if layer.index is None:  # exact scores: the keys are their own index
        index, scale = view(layer.store.data)[:, :, 0].flatten(2), None
    else:
        index = view(layer.index.keys.data)
        scale = None if layer.index.scale is None else view(layer.index.scale.data)
    capacity, block = index.shape[1], min(config.choosing_block, new)
    sizes: dict[str, Any] = {"num_initial": config.num_initial, "num_local": config.num_local}
    # Known here without asking the device: whether any row has more middle tokens than are selected.
    last = max(ends)
    scored = any(segments(max(last - new, s), last, **sizes, start=s).num_middle > config.num_selected for s in starts)
    query_index = None
    if scored:
        folded = layer.compressor.is_folded  # else the map acts on all heads, as the paper trains it
        project, compress = layer.compressor.project_query, layer.compressor.compress_query
        query_index = project(queries.folded) if folded else compress(queries.far)
    chosen, counts = [], []
    blocks = -(-new // block)
    for low in range(0, blocks, _BLOCKS):
        number = min(_BLOCKS, blocks - low)
        # Not shared with other layers through the workspace: torch's caching allocator does that on a GPU.
        own = torch.empty(batch, number, capacity, device=device)
        dilated = torch.empty_like(own)
        scratch = select_scratch(batch * number, capacity, device)
        histogram: Literal["build", "ready"] = "build"
        if query_index is not None and new == 1:
            decode_scores(
                index,
                scale,
                query_index[:, 0].float(),
                start,
                length,
                **sizes,
                proximity=config.proximity,
                own=own[:, 0],
                dilated=dilated[:, 0],
                num_selected=config.num_selected,
                scratch=scratch,
            )
            histogram = "ready"  # the scores were counted on the way
        elif query_index is not None:
            first, last = low * block, min((low + number) * block, new)
            chunk_scores(
                index,
                scale,
                query_index[:, first:last].float(),
                start,
                length,
                **sizes,
                proximity=config.proximity,
                own=own,
                dilated=dilated,
                new_tokens=new,
                first_new=first,
                selection_block=block,
            )
        picked, count = select(
            own, dilated, start, length, new, config.num_selected, **sizes, scratch=scratch, histogram=histogram
        )
        chosen.append(picked)
        counts.append(count)
    if len(chosen) == 1:
        return chosen[0], counts[0]
    return torch.cat(chosen, dim=1), torch.cat(counts, dim=1)


def _tell(
    layer: ESALayer, selected: Tensor, count: Tensor, starts: list[int], ends: list[int], new: int, numbers: list[int]
) -> None:
    """Show watchers what the torch engine shows them; this does wait for the device."""
    config = layer.config
    block = min(config.choosing_block, new)
    for row, start in enumerate(starts):
        end = ends[row if len(ends) > 1 else 0]
        cut = segments(max(end - new, start), end, config.num_initial, config.num_local, start)
        if cut.current >= cut.end or (cut.initial_end == cut.start and cut.num_middle == 0):
            continue
        choices = [
            (number * block, min((number + 1) * block, new), selected[row, number, : int(count[row, number])].cpu())
            for number in range(selected.shape[1])
        ]
        for watcher in layer.watchers:
            watcher(layer.layer_idx, numbers[row], cut, choices)
