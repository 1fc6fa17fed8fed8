"""One step of ESA over a cached layer by the Triton kernels: whole batches, nothing read back to the host.

The kernels rotate local keys themselves, so no window is kept. Chunks of a call share their boundaries across the
batch; where a row begins inside a call of several chunks, rows are run one by one, because a row's chunks begin at its
first token (and the choice of a chunk depends on where it begins). Under strict selection every token is a step of
decoding: the tokens of a sequence are the rows of a batch, with lengths of their own over the same cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.segments import segments
from esa_attention.ops.attend_triton import decode_attention, prefill_attention
from esa_attention.ops.chunk_prepare_triton import prepare_chunk
from esa_attention.ops.prefill_triton import chunk_scores
from esa_attention.ops.query_triton import step_queries
from esa_attention.ops.score_triton import decode_scores
from esa_attention.ops.select_triton import histogram_size, select, select_scratch

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
    by_row = starts is not None and new > size and max(starts) > begin
    waits = 0 if layer.fresh is None else layer.fresh[0].shape[2]
    if waits and (size == 1 or by_row or waits != new or batch != layer.batch):
        layer.flush()  # only whole chunks of the whole batch are written by the step itself
    if size == 1 and new > 1:
        return _decoded(layer, query, scaling, starts or [0] * batch, first_row)
    if by_row and starts is not None:
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
    store, _ = layer.without_fresh()
    new, out = query.shape[2], torch.zeros_like(query)
    begin = layer.get_seq_length() - new
    together = max(1, min(512, _SCORES // store.capacity))
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
    size = layer.config.step_size
    if new <= size:
        return _chunk(layer, lambda held: held[rows], query, scaling, starts, [total], numbers)
    out = torch.empty_like(query)
    lows = range(0, new, size)
    ends = [total - new + min(low + size, new) for low in lows]
    lengths = layer.workspace.numbers("ends", ends, query.device).split(1)  # copied there once for all chunks
    for low, end, length in zip(lows, ends, lengths, strict=True):
        part, own = query[:, :, low : low + size], out[:, :, low : low + size]
        _chunk(layer, lambda held: held[rows], part, scaling, starts, [end], numbers, length, own)
    return out


def _chunk(
    layer: ESALayer,
    view: View,
    query: Tensor,
    scaling: float,
    starts: list[int],
    ends: list[int],
    numbers: list[int],
    length: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Attention of the ``T`` tokens before ``ends`` (one for all rows, or one each) of the rows with these numbers.

    ``length`` is ``ends`` on the device, where it is there already; ``out`` is written and returned if given.
    """
    config, tables = layer.config, layer.tables
    new = query.shape[2]
    start = layer.workspace.numbers("starts", starts, query.device)
    if length is None:
        length = layer.workspace.numbers("ends", ends, query.device)
    longest = max(config.num_local + new, config.w + 1)
    cos, sin = (t[:, : tables.rotary_dim // 2] for t in tables.tables(longest, query.device))
    prepared = _prepare(layer, query, cos, sin, start, length)
    selected, count = _choose(layer, view, prepared, starts, ends, start, length)
    if layer.watchers:
        _tell(layer, selected, count, starts, ends, new, numbers)
    shared: dict[str, Any] = {
        "scale_far": scaling,
        "scale_local": scaling,
        "num_initial": config.num_initial,
        "num_local": config.num_local,
    }
    kv = view(layer.without_fresh()[0].data)
    if new == 1:
        to_heads = (
            prepared.far[:, :, 0],
            prepared.local[:, :, 0],
            kv,
            selected[:, 0],
            count[:, 0],
            start,
            length,
            cos,
            sin,
        )
        found = decode_attention(*to_heads, **shared)[0][:, :, None]
        return found if out is None else out.copy_(found)
    block = min(config.choosing_block, new)
    return prefill_attention(
        *(prepared.far, prepared.local, kv, selected, count, start, length, cos, sin),
        selection_block=block,
        out=out,
        rotated=prepared.rotated,
        is_rotated=prepared.rotated is not None,
        **shared,
    )[0]


class _Prepared(NamedTuple):
    """What scoring and attention need of a chunk, and the memory of the selection.

    Attributes:
        far: Queries at the far position, ``(B, H, T, D)``.
        local: Queries at their places in the window.
        mapped: What the index is multiplied with ``(B, T, R)``; ``None`` where that is still to be made.
        folded: Far queries summed over groups, where ``mapped`` is to be made of them.
        rotated: Keys of the window, if they are rotated already.
        best: Zeros ``(B, T)``, if they are there already.
        zeroed: Zeros for the selection, one after the other for the blocks that are scored at once; likewise.
    """

    far: Tensor
    local: Tensor
    mapped: Tensor | None
    folded: Tensor | None
    rotated: Tensor | None = None
    best: Tensor | None = None
    zeroed: Tensor | None = None


def _prepare(layer: ESALayer, query: Tensor, cos: Tensor, sin: Tensor, start: Tensor, length: Tensor) -> _Prepared:
    """Queries at both places; where tokens are not in the cache yet, all that comes before scoring in one launch."""
    config, tables, maps = layer.config, layer.tables, layer.compressor
    store, index = layer.without_fresh()
    batch, _, new, _ = query.shape
    if layer.fresh is None:
        queries = step_queries(
            *(query, cos, sin, start, length),
            num_kv_heads=store.data.shape[3],
            num_local=config.num_local,
            far_position=config.w,
            far_factor=tables.attention_scaling,
        )
        return _Prepared(queries.far, queries.local, None, queries.folded)
    key, value = layer.fresh
    wide = query.dtype == torch.float64
    best, blocks = batch * new * (2 if wide else 1), -(-new // min(config.choosing_block, new))
    zeroed = torch.empty(best + batch * blocks * histogram_size(), dtype=torch.int32, device=query.device)
    made = prepare_chunk(
        *(query, key[:, :, :new], value[:, :, :new], store.data),
        None if index is None else index.keys.data,
        None if index is None or index.scale is None else index.scale.data,
        maps.query_weight,
        maps.key_weight,
        maps.query_bias,
        maps.key_bias,
        *(start, length, cos, sin),
        num_initial=config.num_initial,
        num_local=config.num_local,
        far_position=config.w,
        far_factor=tables.attention_scaling,
        zeroed=zeroed,
    )
    rest = key.shape[2] - new
    layer.fresh = (key[:, :, new:], value[:, :, new:]) if rest else None
    top = zeroed[:best].view(torch.int64) if wide else zeroed[:best]
    return _Prepared(made.far, made.local, made.mapped, None, made.rotated, top.view(batch, new), zeroed[best:])


def _choose(
    layer: ESALayer,
    view: View,
    prepared: _Prepared,
    starts: list[int],
    ends: list[int],
    start: Tensor,
    length: Tensor,
) -> tuple[Tensor, Tensor]:
    """Selected tokens ``(B, blocks, k)`` and how many are meant ``(B, blocks)``."""
    config, (store, held) = layer.config, layer.without_fresh()
    batch, new, device = prepared.far.shape[0], prepared.far.shape[2], prepared.far.device
    if held is None:  # exact scores: the keys are their own index
        index, scale = view(store.data)[:, :, 0].flatten(2), None
    else:
        index = view(held.keys.data)
        scale = None if held.scale is None else view(held.scale.data)
    capacity, block = index.shape[1], min(config.choosing_block, new)
    sizes: dict[str, Any] = {"num_initial": config.num_initial, "num_local": config.num_local}
    # Known here without asking the device: whether any row has more middle tokens than are selected.
    last = max(ends)
    scored = any(segments(max(last - new, s), last, **sizes, start=s).num_middle > config.num_selected for s in starts)
    query_index = _query_index(layer, prepared) if scored else None
    chosen, counts = [], []
    blocks, done = -(-new // block), 0
    for low in range(0, blocks, _BLOCKS):
        number = min(_BLOCKS, blocks - low)
        # Not shared with other layers through the workspace: torch's caching allocator does that on a GPU.
        own = torch.empty(batch, number, capacity, device=device)
        dilated = torch.empty_like(own)
        zeroed = prepared.zeroed
        if zeroed is not None:
            size = batch * number * histogram_size()
            zeroed, done = zeroed[done : done + size].view(batch * number, -1), done + size
        scratch = select_scratch(batch * number, capacity, device, zeroed=zeroed)
        histogram: Literal["build", "ready"] = "build" if scored else "ready"  # where all are taken nobody counts
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
                best=None if prepared.best is None else prepared.best[:, first:last],
                num_selected=config.num_selected,
                scratch=None if zeroed is None else scratch,
            )
            histogram = "build" if zeroed is None else "ready"
        picked, count = select(
            own, dilated, start, length, new, config.num_selected, **sizes, scratch=scratch, histogram=histogram
        )
        chosen.append(picked)
        counts.append(count)
    if len(chosen) == 1:
        return chosen[0], counts[0]
    return torch.cat(chosen, dim=1), torch.cat(counts, dim=1)


def _query_index(layer: ESALayer, prepared: _Prepared) -> Tensor:
    """What the index is multiplied with, ``(B, T, R)``."""
    if prepared.mapped is not None:
        return prepared.mapped
    if layer.compressor.is_folded and prepared.folded is not None:
        return layer.compressor.project_query(prepared.folded)
    return layer.compressor.compress_query(prepared.far)  # the map acts on all heads, as the paper trains it


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
