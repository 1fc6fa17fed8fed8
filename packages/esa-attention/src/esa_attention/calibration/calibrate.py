"""From a model and some text to the maps of every layer: one forward pass over the text, then one solve a layer."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from effkit.errors import UserError, choose
from effkit.executors import Choice
from effkit.progress import report_progress
from esa_attention.calibration.closed_form import check_eps, check_rank, closed_form
from esa_attention.calibration.gathering import gather_moments, gather_samples, layer_device
from esa_attention.calibration.pca import key_pca
from esa_attention.calibration.sequences import as_sequences, cut_texts
from esa_attention.calibration.sgd import check_training, sgd_paper
from esa_attention.calibration.spectrum import check_tail, rank_for_tail
from esa_attention.calibration.state import StateFile
from esa_attention.compression.compressor import Compressors, QKCompressor, fingerprint
from esa_attention.compression.geometry import ModelGeometry, geometry
from esa_attention.config import ESAConfig
from esa_attention.integration.sending import Remake

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["METHODS", "calibrate"]

METHODS = ("closed_form", "sgd_paper", "key_pca", "exact")
_ALIASES = {"sgd": "sgd_paper", "pca": "key_pca"}


def calibrate(
    model: PreTrainedModel | nn.Module,
    token_ids: Tensor | Sequence[Any] | None = None,
    *,
    method: str = "closed_form",
    rank: int | Literal["auto"] = 128,
    tail: float = 0.01,
    far_position: int | None = None,
    num_tokens: int = 50_000,
    sequence_length: int | None = None,
    batch_size: int = 1,
    bias: bool | None = None,
    eps: float = 1e-10,
    lr: float = 5e-4,
    sgd_batch_size: int = 128,
    epochs: int = 10,
    init: Literal["default", "closed_form"] = "default",
    seed: int = 0,
    text: str | Sequence[str] = "",
    state_path: str | os.PathLike[str] | None = None,
    choice: Choice | None = None,
    remake: Remake | None = None,
) -> Compressors:
    """Find the query and key maps of every layer (section 3.3 of the paper).

    The model reads the text with its own full attention. Queries are rotated to the far position, keys are left
    unrotated, as the far part of the attention has them. The closed form and key PCA keep two matrices of
    ``(K * D, K * D)`` a layer (float64, on the layer's device); ``sgd_paper`` keeps every query and key in host
    memory, in the model's type.

    Args:
        model: A transformers causal language model with RoPE.
        token_ids: The text: ``(N,)``, ``(B, N)`` or a list of sequences. Unused by ``exact``.
        method: ``closed_form`` (ours, the optimum of Eq. 7), ``sgd_paper`` or ``sgd`` (the paper), ``key_pca`` or
            ``pca`` (Loki), ``exact`` (no compression).
        rank: Compressed dimension, at most ``K * D``; the paper has 128. ``"auto"``: for every layer the smallest
            multiple of 8 that loses at most ``tail`` (closed form: of the scores' variance; key PCA: of the keys').
            Unused by ``exact``.
        tail: See ``rank``.
        far_position: Position of the queries (w); that of :class:`~esa_attention.config.ESAConfig` if not given. It
            must be the one in force when the maps are used.
        num_tokens: Most tokens that are read; the paper has 50,000.
        sequence_length: Tokens read at once; the trained context if not given. Longer texts are cut.
        batch_size: Sequences of equal length read at once.
        bias: Biases as in the literal Eq. 7; by default only for ``sgd_paper``.
        eps: Floor of eigenvalues, relative to the largest (closed form).
        lr: Learning rate (``sgd_paper``).
        sgd_batch_size: Tokens of a training batch (``sgd_paper``).
        epochs: Passes over the samples (``sgd_paper``).
        init: Initial weights (``sgd_paper``).
        seed: Of what ``sgd_paper`` draws.
        text: A name for the text, or for each of several sequences, kept with the result beside how many tokens of
            each were read.
        state_path: File in which moments are kept after every batch. If it is there already, the calibration goes on
            after what it covers, or, if it covers all, only solves (e.g. for another rank).
        choice: Where the text is read (:class:`effkit.executors.Choice`); in this process if not given. The maps do not
            depend on it. Not for ``sgd_paper``.
        remake: Loads the model in a worker (:mod:`esa_attention.integration.sending`); else the model is sent.

    Returns:
        Float32 maps of every layer, on the layer's device.

    Raises:
        UserError: If the model is not supported, an argument is out of range, the text is empty, a query or key is NaN
            or infinite, or ``state_path`` is of another calibration.
    """
    method = choose("method", _ALIASES.get(method, method), METHODS)
    shape = geometry(model)
    if far_position is not None or method != "exact":  # exact scores fit every position
        far_position = _far_position(far_position, shape)
    made_for: dict[str, Any] = {"method": method, "far_position": far_position, "fingerprint": fingerprint(model)}
    if method == "exact":
        exact = QKCompressor.exact(shape.num_kv_heads, shape.head_dim)
        return Compressors([exact] * shape.num_layers, **made_for)
    if token_ids is None:
        raise UserError(f"token_ids must be given for method={method}, got None")
    if rank != "auto":
        check_rank(rank, shape.key_dim)
    elif method == "sgd_paper":
        raise UserError(
            "rank must be a number for method=sgd_paper, got 'auto' (which needs a spectrum: use closed_form)"
        )
    check_tail(tail)
    check_eps(eps)
    check_training(lr, sgd_batch_size, epochs, init)
    length = shape.trained_context if sequence_length is None else sequence_length
    _check_size("num_tokens", num_tokens, 2)
    _check_size("sequence_length", length, 2, shape.trained_context)
    _check_size("batch_size", batch_size, 1)
    pieces, texts = cut_texts(as_sequences(token_ids, shape.base), text, length, num_tokens)
    if not pieces:
        raise UserError("token_ids must hold a sequence of at least 2 tokens, got none")
    bias = method == "sgd_paper" if bias is None else bias
    heads = shape.num_kv_heads
    solve: Callable[[int], QKCompressor]
    if method == "sgd_paper":
        if state_path is not None:
            raise UserError(f"state_path keeps moments, and method=sgd_paper uses none; leave it out, got {state_path}")
        if choice is not None and choice.executor != "serial":
            raise UserError(
                f"executor={choice.executor}: method=sgd_paper trains on the samples themselves, in one process; only "
                "moments add up: leave executor out"
            )
        samples = gather_samples(model, shape, pieces, made_for["far_position"], batch_size)

        def solve(layer: int) -> QKCompressor:
            device = layer_device(shape, layer)
            pairs = [(query.to(device), key.to(device)) for query, key in samples[layer]]
            samples[layer] = []  # a layer's samples are not needed again
            options: dict[str, Any] = {"lr": lr, "batch_size": sgd_batch_size, "epochs": epochs, "init": init}
            assert rank != "auto"
            return sgd_paper(pairs, rank, num_kv_heads=heads, seed=seed + layer, bias=bias, **options).compressor
    else:
        uncentred = method == "closed_form" and bias
        state = None
        if state_path is not None:
            state = StateFile(state_path, made_for["fingerprint"], made_for["far_position"], uncentred, pieces)
        moments = gather_moments(
            model, shape, pieces, made_for["far_position"], batch_size, uncentred, state, choice, remake
        )

        def solve(layer: int) -> QKCompressor:
            most = shape.key_dim if rank == "auto" else rank
            if method == "key_pca":
                made = key_pca(moments[layer], most, num_kv_heads=heads)
            else:
                made = closed_form(moments[layer], most, num_kv_heads=heads, bias=bias, eps=eps)
            return _shortened(made, tail) if rank == "auto" else made

    layers = []
    for layer in range(shape.num_layers):
        report_progress(f"solve layer {layer + 1} of {shape.num_layers}", layer / shape.num_layers)
        layers.append(solve(layer).to(dtype=torch.float32))
    named = text if isinstance(text, str) else " and ".join(text)
    return Compressors(layers, num_tokens=sum(len(p) for p in pieces), text=named, texts=texts, **made_for)


def _far_position(asked: int | None, shape: ModelGeometry) -> int:
    position = ESAConfig().w if asked is None else asked
    if isinstance(position, bool) or not isinstance(position, int) or not 0 <= position <= shape.trained_context:
        raise UserError(
            f"far_position must be a whole number in 0..{shape.trained_context} (the trained context), got {position!r}"
            f"{' by default: give the num_local that will be used' if asked is None else ''}"
        )
    return position


def _check_size(name: str, value: int, least: int, most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        allowed = f"of at least {least}" if most is None else f"in {least}..{most}"
        raise UserError(f"{name} must be a whole number {allowed}, got {value!r}")


def _shortened(made: QKCompressor, tail: float) -> QKCompressor:
    """The first dimensions only: both methods order them, and the best maps of a lower rank are their first rows."""
    assert made.spectrum is not None
    rank = rank_for_tail(made.spectrum, tail, multiple_of=8)
    shorter: dict[str, Any] = {name: value[:rank].clone() for name, value in made.tensors().items()}
    return replace(made, **shorter)
