"""One pass of the model over the calibration text: moments, or the samples themselves, of every layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from effkit.executors import Choice, Task, run
from effkit.progress import report_progress
from esa_attention.calibration.moments import StreamingMoments, check_finite
from esa_attention.calibration.observing import FarRows, run_observed
from esa_attention.calibration.sequences import in_batches
from esa_attention.calibration.state import StateFile
from esa_attention.compression.geometry import ModelGeometry, geometry
from esa_attention.integration.sending import Remake, packed, unpacked

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["gather_moments", "gather_samples", "layer_device"]


class _Progress:
    """Counts tokens and says so."""

    def __init__(self, pieces: Sequence[Tensor], done: int) -> None:
        self._total = sum(len(p) for p in pieces)
        self._read = sum(len(p) for p in pieces[:done])

    def add(self, ids: Tensor) -> None:
        self._read += ids.numel()
        report_progress(f"read {self._read:,} of {self._total:,} tokens", self._read / self._total)


def gather_moments(
    model: PreTrainedModel | nn.Module,
    shape: ModelGeometry,
    pieces: Sequence[Tensor],
    far_position: int,
    batch_size: int,
    uncentred: bool,
    state: StateFile | None,
    choice: Choice | None = None,
    remake: Remake | None = None,
) -> list[StreamingMoments]:
    """Moments of every layer over all pieces.

    Each batch is summed by itself, and the sums are added in the order of the text: so they do not depend on how many
    workers read it, or on who is done first.

    Args:
        model: The model.
        shape: Its geometry.
        pieces: Sequences ``(T,)`` that it can read.
        far_position: Position of the queries.
        batch_size: Pieces of equal length read at once.
        uncentred: Keep moments of keys that are not centred too.
        state: Where moments are kept after every batch and taken up again.
        choice: Where batches are read; in this process if not given.
        remake: Loads the model in a worker; without it the model is sent.

    Raises:
        UserError: If a query or key is NaN or infinite, or the state is of something else.
        TaskError: If a worker cannot do its batch.
    """
    found = None if state is None else state.load()
    moments = [StreamingMoments(shape.key_dim, layer=i, uncentred=uncentred) for i in range(shape.num_layers)]
    moments, done = (moments, 0) if found is None else found
    progress = _Progress(pieces, done)

    def after(ids: Tensor) -> None:
        nonlocal done
        done += len(ids)
        if state is not None:
            state.save(moments, done)
        progress.add(ids)

    if done < len(pieces):
        batches = in_batches(pieces[done:], batch_size)
        if choice is None or choice.executor == "serial":

            def receive(layer: int, query: Tensor, key: Tensor) -> None:
                moments[layer].merge(_sums(layer, query, key, uncentred))

            run_observed(model, batches, FarRows(shape, far_position, receive), after)
        else:
            _on_workers(model, list(batches), far_position, moments, after, choice, remake)
            for layer, own in enumerate(moments):
                device = layer_device(shape, layer)
                own.to(torch.device("cpu") if device.type == "mps" else device)  # no float64 there
    return moments


def _sums(layer: int, query: Tensor, key: Tensor, uncentred: bool) -> StreamingMoments:
    """Moments of one layer over one batch."""
    made = StreamingMoments(key.shape[-1], layer=layer, uncentred=uncentred)
    for query_row, key_row in zip(query, key, strict=True):
        made.update(query_row, key_row)
    return made


def _on_workers(
    model: Any,
    batches: Sequence[Tensor],
    far_position: int,
    moments: list[StreamingMoments],
    after: Callable[[Tensor], None],
    choice: Choice,
    remake: Remake | None,
) -> None:
    content, uncentred = packed(model, remake), moments[0].uncentred
    tasks = [
        Task(f"batch {number + 1} of {len(batches)}", content, ids, far_position, uncentred)
        for number, ids in enumerate(batches)
    ]
    with choice.open(tasks=len(tasks)) as pool:
        results = run(pool, _read, tasks, progress=False, window=4 * pool.workers)
        for ids, sums in zip(batches, results, strict=True):
            for own, state in zip(moments, sums, strict=True):
                own.merge(StreamingMoments.from_state(state, layer=own.layer))
            after(ids)


def _read(content: bytes, ids: Tensor, far_position: int, uncentred: bool) -> list[dict[str, Tensor]]:
    """In a worker: the moments of every layer over one batch, on the CPU."""
    model = unpacked(content)
    shape = geometry(model)
    sums: dict[int, StreamingMoments] = {}

    def receive(layer: int, query: Tensor, key: Tensor) -> None:
        sums[layer] = _sums(layer, query, key, uncentred)

    run_observed(model, [ids], FarRows(shape, far_position, receive))
    return [{n: t.cpu() for n, t in sums[layer].state().items()} for layer in range(shape.num_layers)]


def gather_samples(
    model: PreTrainedModel | nn.Module,
    shape: ModelGeometry,
    pieces: Sequence[Tensor],
    far_position: int,
    batch_size: int,
) -> list[list[tuple[Tensor, Tensor]]]:
    """Queries and keys ``(N, K * D)`` of every layer, batch by batch, in host memory and the type of the keys.

    Raises:
        UserError: If a query or key is NaN or infinite.
    """
    samples: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(shape.num_layers)]

    def receive(layer: int, query: Tensor, key: Tensor) -> None:
        check_finite("queries", layer, query)
        check_finite("keys", layer, key)
        samples[layer].append((query.flatten(0, 1).to("cpu", key.dtype), key.flatten(0, 1).to("cpu", copy=True)))

    progress = _Progress(pieces, 0)
    run_observed(model, in_batches(pieces, batch_size), FarRows(shape, far_position, receive), progress.add)
    return samples


def layer_device(shape: ModelGeometry, layer: int) -> torch.device:
    """Where a layer computes; the CPU for weights that are offloaded."""
    parameter: Any = next(shape.attentions[layer].parameters())
    return torch.device("cpu") if parameter.device.type == "meta" else parameter.device
