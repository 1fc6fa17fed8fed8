"""Calibration by gradient descent, as the paper does it (Eq. 7); the comparison for the closed form.

Stated by the paper: the loss, 50,000 tokens, learning rate 5e-4, batches of 128, 10 epochs. Not given, and chosen here:
the optimiser (Adam), which pairs of a batch enter the loss (all 128 x 128), the initialisation (that of
``torch.nn.Linear``), the last batch of an epoch (kept, smaller), the rotary state (queries rotated to the far position,
keys unrotated, as the far attention has them).

Queries arrive summed over the heads of a group, where the paper maps all heads. Nothing is lost: the target depends on
queries only through those sums, so the best map over all heads does too, and a key map over repeated keys acts as the
sum of its blocks (:meth:`~esa_attention.compression.qk_compressor.QKCompressor.from_unfolded`). Training all heads is
therefore not offered.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from effkit.errors import UserError, choose
from effkit.progress import report_progress
from esa_attention.calibration.closed_form import check_rank, closed_form
from esa_attention.calibration.moments import StreamingMoments
from esa_attention.compression.qk_compressor import QKCompressor

__all__ = ["SgdResult", "check_training", "sgd_paper"]

Samples = tuple[Tensor, Tensor]


class SgdResult(NamedTuple):
    """A trained compressor.

    Attributes:
        compressor: The maps, float32.
        losses: Mean squared error over the pairs of every batch, in order, ``(steps,)``.
    """

    compressor: QKCompressor
    losses: Tensor


def check_training(lr: float, batch_size: int, epochs: int, init: str) -> None:
    """Check the settings of :func:`sgd_paper` before any work is done.

    Raises:
        UserError: For the first that is out of range.
    """
    if not (lr > 0 and math.isfinite(lr)):
        raise UserError(f"lr must be a positive number, got {lr!r}")
    for name, value in (("batch_size", batch_size), ("epochs", epochs)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
    choose("init", init, ["default", "closed_form"])


def sgd_paper(
    samples: Samples | Iterable[Samples],
    rank: int,
    *,
    num_kv_heads: int = 1,
    lr: float = 5e-4,
    batch_size: int = 128,
    epochs: int = 10,
    seed: int = 0,
    bias: bool = True,
    init: Literal["default", "closed_form"] = "default",
) -> SgdResult:
    """Train the maps of one layer on random batches of pairs.

    Args:
        samples: Folded queries at the far position and keys of the same tokens, both ``(N, K * D)``; or several such
            pairs, which are concatenated. Kept in memory, since every epoch reads them again.
        rank: Compressed dimension, at most ``K * D``.
        num_kv_heads: Key-value heads (K), for the compressor's shape.
        lr: Learning rate of Adam.
        batch_size: Tokens of a batch; all ``batch_size ** 2`` pairs enter its loss.
        epochs: Times that the samples are read.
        seed: Of initial weights and order; the result depends on nothing else.
        bias: With biases, as the paper's cost formula counts them.
        init: ``default`` of ``torch.nn.Linear``, or the ``closed_form`` optimum of the same loss (keys not centred).

    Returns:
        The compressor and the loss of every step.

    Raises:
        UserError: If an argument is out of range, or a sample is NaN or infinite.
    """
    check_training(lr, batch_size, epochs, init)
    # Callers may have gradients switched off, or be in inference mode.
    with torch.inference_mode(False), torch.enable_grad():
        query, key = _gather(samples)
        count, dim = key.shape
        check_rank(rank, dim)
        generator = torch.Generator().manual_seed(seed)
        # Drawn in any case, so that both initialisations see the same batches.
        weights = _default_init(rank, dim, generator, bias)
        if init == "closed_form":
            moments = StreamingMoments(dim, uncentred=True)
            moments.update(query, key)
            found = closed_form(moments, rank, bias=True)
            weights = list(found.tensors().values())[: len(weights)]
        parameters = [w.to(key.device, torch.float32, copy=True).requires_grad_() for w in weights]
        optimizer = torch.optim.Adam(parameters, lr=lr)
        losses = torch.zeros(epochs * -(-count // batch_size), device=key.device)
        step = 0
        for epoch in range(epochs):
            report_progress(f"epoch {epoch + 1} of {epochs}", epoch / epochs)
            for chosen in torch.randperm(count, generator=generator).to(key.device).split(batch_size):
                loss = _loss(query[chosen].float(), key[chosen].float(), parameters)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                losses[step] = loss.detach()  # read once at the end: no synchronisation a step
                step += 1
    if not bool(torch.isfinite(losses).all()):
        raise UserError(f"lr must be small enough for the loss to stay finite, got {lr!r}")
    query_weight, key_weight, *biases = (p.detach() for p in parameters)
    maps = QKCompressor(num_kv_heads, dim // num_kv_heads, query_weight, key_weight, *biases)
    return SgdResult(maps, losses.cpu())


def _gather(samples: Samples | Iterable[Samples]) -> Samples:
    pairs: list[Any] = list(samples)
    if len(pairs) == 2 and all(isinstance(t, Tensor) for t in pairs):
        pairs = [(pairs[0], pairs[1])]
    if not pairs:
        raise UserError("samples must hold at least one pair of queries and keys, got none")
    query, key = (torch.cat([pair[i] for pair in pairs]) for i in range(2))
    if query.ndim != 2 or query.shape != key.shape or key.numel() == 0:
        raise UserError(
            f"samples must be queries and keys of one shape (N, K * D), got {tuple(query.shape)} and {tuple(key.shape)}"
        )
    for name, rows in (("queries", query), ("keys", key)):
        if not bool(torch.isfinite(rows).all()):
            raise UserError(f"calibration {name} must be finite, got NaN or infinity")
    return query, key


def _default_init(rank: int, dim: int, generator: torch.Generator, bias: bool) -> list[Tensor]:
    """Weights and biases as ``torch.nn.Linear(dim, rank)`` draws them, from our own generator."""
    bound = dim**-0.5
    shapes = [(rank, dim), (rank, dim)] + ([(rank,), (rank,)] if bias else [])
    return [torch.empty(shape).uniform_(-bound, bound, generator=generator) for shape in shapes]


def _loss(query: Tensor, key: Tensor, parameters: list[Tensor]) -> Tensor:
    """Mean of Eq. 7 over all pairs of a batch."""
    query_weight, key_weight, *biases = parameters
    query_bias, key_bias = biases or (None, None)
    target = query @ key.T
    low = nn.functional.linear(query, query_weight, query_bias) @ nn.functional.linear(key, key_weight, key_bias).T
    return (low - target).square().mean()
