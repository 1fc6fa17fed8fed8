"""One step of ESA over a cached layer, row by row in torch: every device and type, written for CPUs.

A step splits its tokens into chunks (under ``strict_causal`` into tokens, each of which is decoded), finds for each the
middle tokens worth reading, attends to (initial, selected) with far positions and to (local, current) with true ones,
and merges the two by their lse.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.engine.choosing import Choices, choose_tokens
from esa_attention.attention.segments import Segments, segments
from esa_attention.ops.attention_torch import attend
from esa_attention.ops.decode_cpu import attend_decode
from esa_attention.ops.states_torch import merge_attention_states

__all__ = ["attend_layer_torch"]


def attend_layer_torch(
    layer: ESALayer, query: Tensor, scaling: float, starts: Sequence[int] | None, first_row: int = 0
) -> Tensor:
    """See :func:`esa_attention.attention.engine.step.attend_layer`; queries are of the rows from ``first_row`` on."""
    total = layer.get_seq_length()
    # Every token of an unpadded row is written below.
    out = torch.empty_like(query) if starts is None else torch.zeros_like(query)
    for row in range(query.shape[0]):
        first = 0 if starts is None else starts[row]
        current = max(first, total - query.shape[2])
        while current < total:
            end = min(current + layer.config.step_size, total)
            low, high = current - total + query.shape[2], end - total + query.shape[2]
            out[row, :, low:high] = _chunk(layer, first_row + row, query[row, :, low:high], current, first, scaling)
            current = end
    return out


def _chunk(layer: ESALayer, row: int, query: Tensor, current: int, start: int, scaling: float) -> Tensor:
    """Attention ``(H, T, D)`` of one chunk of one row."""
    config = layer.config
    end = current + query.shape[1]
    cut = segments(current, end, config.num_initial, config.num_local, start)
    if cut.initial_end == cut.start and cut.num_middle == 0:
        return _local(layer, row, query, cut, scaling)[0]
    turned = layer.tables.rotate_far(query, config.w)
    choices = choose_tokens(layer, row, turned, cut)
    for watcher in layer.watchers:
        watcher(layer.layer_idx, row, cut, choices)
    assert layer.store is not None
    store = layer.store.data[row]
    if query.shape[1] == 1 and query.device.type == store.device.type == "cpu":
        keys, values, position = layer.window(row).read(store, cut.local, cut.end)
        near_query = layer.tables.rotate(query, position + cut.current - cut.local)
        initial = torch.arange(cut.start, cut.initial_end)
        far_indices = torch.cat((initial, choices[0][2]))
        if far_indices.shape[0] == 0:
            return _local(layer, row, query, cut, scaling)[0]
        local = (near_query, keys, values)
        return attend_decode(turned, store, far_indices, *local, scaling, layer.workspace.get, config.cpu_forms)
    near, near_lse = _local(layer, row, query, cut, scaling)
    far, far_lse = _far(layer, row, turned, cut, choices, scaling)
    return merge_attention_states([near, far], [near_lse, far_lse])[0]


def _far(
    layer: ESALayer, row: int, turned: Tensor, cut: Segments, choices: Choices, scaling: float
) -> tuple[Tensor, Tensor]:
    """Attention over initial and chosen tokens, all at one distance: output ``(H, T, D)``, lse ``(H, T)``."""
    outs, lses = [], []
    for low, high, chosen in choices:
        keys, values = _far_tokens(layer, row, cut, chosen)
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


def _far_tokens(layer: ESALayer, row: int, cut: Segments, chosen: Tensor) -> tuple[Tensor, Tensor]:
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
