"""How well compressed scores choose: recall of the exact choice (the paper's Fig. 2), and the error of scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from esa_attention.calibration.observing import FarRows, run_observed
from esa_attention.calibration.sequences import as_sequences
from esa_attention.compression.compressor import Compressors
from esa_attention.compression.geometry import geometry
from esa_attention.compression.qk_compressor import QKCompressor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["per_layer_recall", "recall_at_k", "score_error"]

_BLOCK = 1 << 22  # scores held at once


def recall_at_k(compressor: QKCompressor, query: Tensor, key: Tensor, k: int, *, chunked: bool = False) -> float:
    """Share of the ``k`` best keys by exact score that are among the ``k`` best by compressed score.

    Equal scores are chosen by the lower index, as :func:`~esa_attention.ops.selection_torch.select_topk` does.

    Args:
        compressor: Maps of one layer.
        query: Folded queries, rotated to the far position, ``(T, K * D)``.
        key: Unrotated keys, ``(N, K * D)``.
        k: Size of the choice, less than ``N`` (else every choice is the same).
        chunked: All queries choose together (Eq. 4), as a chunk does; otherwise each for itself, and the mean over
            queries is returned.

    Returns:
        Recall in ``[0, 1]``.

    Raises:
        UserError: If shapes, ``k`` or values do not fit.
    """
    _check(compressor, query, key)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k < key.shape[0]:
        raise UserError(f"k must be a whole number in 1..{key.shape[0] - 1} (fewer than the keys), got {k!r}")
    found, asked = 0, 0
    best: list[Tensor | None] = [None, None]
    for exact, low in _scores(compressor, query, key):
        if not chunked:
            found += int((_chosen(exact, k) & _chosen(low, k)).sum())
            asked += k * exact.shape[0]
            continue
        for i, scores in enumerate((exact, low)):
            own = (scores - scores.amax(dim=-1, keepdim=True)).amax(dim=0, keepdim=True)
            before = best[i]
            best[i] = own if before is None else torch.maximum(before, own)
    if chunked:
        exact, low = (_chosen(scores, k) for scores in best if scores is not None)
        found, asked = int((exact & low).sum()), k
    return found / asked


def score_error(compressor: QKCompressor, query: Tensor, key: Tensor, *, centred: bool = True) -> float:
    """Squared error of compressed scores over all pairs, as a share of the exact scores' sum of squares.

    Args:
        compressor: Maps of one layer.
        query: Folded queries, rotated to the far position, ``(T, K * D)``.
        key: Unrotated keys, ``(N, K * D)``.
        centred: First take from every query's scores their mean over keys, which no choice depends on.

    Returns:
        0 for exact scores, 1 for scores that are all 0; more is possible.

    Raises:
        UserError: If shapes or values do not fit.
    """
    _check(compressor, query, key)
    lost, total = 0.0, 0.0
    # Differences of scores: not a matter for single precision, where the device has double.
    least = torch.float32 if key.device.type == "mps" else torch.float64
    for exact, low in _scores(compressor, query, key, least):
        if centred:
            exact, low = (s - s.mean(dim=-1, keepdim=True) for s in (exact, low))
        lost += float((exact - low).square().sum())
        total += float(exact.square().sum())
    return lost / total if total > 0 else (0.0 if lost == 0 else float("inf"))


def per_layer_recall(
    model: PreTrainedModel | nn.Module,
    token_ids: Tensor | Sequence[int],
    compressors: Mapping[str, Compressors],
    k: int,
    *,
    num_queries: int = 2000,
    num_initial: int = 0,
    num_local: int = 0,
    chunk_size: int | None = None,
) -> dict[str, list[float]]:
    """Recall in every layer on a text, best another than that of the calibration.

    The model reads the text with full attention. Its last ``num_queries`` tokens choose among the keys before them. The
    paper's Fig. 2 has the 2,000 tokens at 23,000-25,000 choose, in a model trained on 32k.

    Args:
        model: A transformers causal language model.
        token_ids: One sequence, ``(T,)`` or ``(1, T)``, no longer than the trained context.
        compressors: What to compare, by name; all calibrated for the same far position.
        k: Size of the choice.
        num_queries: Tokens that choose.
        num_initial: Keys at the beginning that are not chosen from (they are always attended to).
        num_local: Keys right before the first query that are not chosen from.
        chunk_size: So many queries choose together (Eq. 4); each for itself if not given.

    Returns:
        A list of recalls, one a layer, for every name.

    Raises:
        UserError: If the model, the compressors or the sizes do not fit.
    """
    shape = geometry(model)
    positions = {n: made.far_position for n, made in compressors.items() if made.method != "exact"}
    positions = positions or {n: made.far_position for n, made in compressors.items()}
    far_position = next(iter(positions.values()), None)
    if far_position is None or set(positions.values()) != {far_position}:
        raise UserError(f"compressors must be at least one, all with the same known far_position, got {positions}")
    for made in compressors.values():
        made.check_model(model)
    sequences = as_sequences(token_ids, shape.base)
    if len(sequences) != 1 or len(sequences[0]) > shape.trained_context:
        raise UserError(
            f"token_ids must be one sequence of at most {shape.trained_context} tokens (the trained context), "
            f"got lengths {[len(s) for s in sequences]}"
        )
    (sequence,) = sequences
    sizes = {"num_queries": (num_queries, 1), "num_initial": (num_initial, 0), "num_local": (num_local, 0)}
    sizes["chunk_size"] = (1 if chunk_size is None else chunk_size, 1)
    for name, (value, least) in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"{name} must be a whole number of at least {least}, got {value!r}")
    end = len(sequence) - num_queries - num_local
    if end - num_initial <= k:
        raise UserError(
            f"token_ids must hold more than num_initial + k + num_local + num_queries = "
            f"{num_initial + k + num_local + num_queries} tokens, got {len(sequence)}"
        )
    results: dict[str, list[float]] = {name: [0.0] * shape.num_layers for name in compressors}

    def measure(layer: int, query: Tensor, key: Tensor) -> None:
        query, key = query[0, -num_queries:], key[0, num_initial:end]
        for name, made in compressors.items():
            maps = made[layer].to(key.device)
            if chunk_size is None:
                results[name][layer] = recall_at_k(maps, query, key, k)
            else:
                chunks = query.split(chunk_size)
                results[name][layer] = sum(recall_at_k(maps, c, key, k, chunked=True) for c in chunks) / len(chunks)

    run_observed(model, [sequence[None]], FarRows(shape, far_position, measure))
    return results


def _check(compressor: QKCompressor, query: Tensor, key: Tensor) -> None:
    for name, rows in (("query", query), ("key", key)):
        if rows.ndim != 2 or rows.shape[0] == 0 or rows.shape[1] != compressor.key_dim:
            raise UserError(f"{name} must have the shape (N, {compressor.key_dim}), N >= 1, got {tuple(rows.shape)}")
        if not bool(torch.isfinite(rows).all()):
            raise UserError(f"{name} must be finite, got NaN or infinity")


def _scores(
    compressor: QKCompressor, query: Tensor, key: Tensor, least: torch.dtype = torch.float32
) -> Iterator[tuple[Tensor, Tensor]]:
    """Exact and compressed scores ``(t, N)`` of a few queries at a time, at least in the type ``least``."""
    wide = torch.promote_types(torch.promote_types(query.dtype, key.dtype), least)
    query, key = query.to(wide), key.to(wide)
    maps = compressor.to(dtype=wide)
    index = maps.project_key(key)
    for rows in query.split(max(1, _BLOCK // key.shape[0])):
        yield rows @ key.T, maps.project_query(rows) @ index.T


def _chosen(scores: Tensor, k: int) -> Tensor:
    """Mask ``(..., N)`` of the ``k`` largest; of equal scores the lower indices. Linear in ``N``, no sorting."""
    least = scores.topk(k, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
    above = scores > least
    equal = scores == least
    room = k - above.sum(dim=-1, keepdim=True)
    return above | (equal & (equal.cumsum(dim=-1) <= room))
