"""Batch normalisation that can be told, from outside and per thread, which statistics to use.

A supernet's running statistics mix all sub-networks, so that every sub-network needs its own, estimated anew. Layers
here ask the session of their thread: none (as ``nn.BatchNorm2d``), one that collects, or one that applies what was
collected. A session may hold several architectures whose pictures are stacked on the batch axis; each gets statistics
of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from effkit.errors import UserError

__all__ = ["Applying", "BatchNorm", "Collecting", "Moments", "norm_factory", "rows_of"]


class Moments(NamedTuple):
    """Statistics of one layer.

    Attributes:
        mean: (C,), or (G, C) for G architectures.
        var: Variance with the factor N / (N - 1), as PyTorch's ``running_var`` has it; same shape.
    """

    mean: Tensor
    var: Tensor


class _State(threading.local):
    session: Collecting | Applying | None = None
    rows: tuple[int, ...] | None = None  # architectures whose pictures are on the batch axis, in that order


_state = _State()


class BatchNorm(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` with the same parameters and buffers, which also serves the session of its thread."""

    def forward(self, x: Tensor) -> Tensor:
        session = _state.session
        if session is not None:
            return session.normalise(self, x)
        rows = _state.rows
        if rows is None or len(rows) == 1 or not (self.training or self.running_mean is None):
            return self.plain(x)
        # In training, several architectures' pictures: each by its own batch; running statistics as after one another.
        return torch.cat([self.plain(part) for part in x.chunk(len(rows))])

    def plain(self, x: Tensor) -> Tensor:
        """Without a session: as ``nn.BatchNorm2d``."""
        return super().forward(x)

    def scale_and_shift(self, channels: int) -> tuple[Tensor | None, Tensor | None]:
        """What is learnt for the first ``channels`` channels, (channels,) each; ``None`` without ``affine``."""
        weight, bias = self.weight, self.bias
        if weight is None or channels == len(weight):
            return weight, bias
        return weight[:channels], bias[:channels]


def norm_factory(affine: bool = True, track_running_stats: bool = True) -> Callable[[int], nn.BatchNorm2d]:
    """Make the norms of a supernet."""
    return lambda channels: BatchNorm(channels, affine=affine, track_running_stats=track_running_stats)


@contextmanager
def rows_of(architectures: Sequence[int] | None) -> Iterator[None]:
    """Say whose pictures are on the batch axis, in equal shares: within a batched forward, around each operation."""
    before, _state.rows = _state.rows, None if architectures is None else tuple(architectures)
    try:
        yield
    finally:
        _state.rows = before


class _Session:
    def __enter__(self):  # type: ignore[no-untyped-def]
        self._before = _state.session
        _state.session = self  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        _state.session = self._before


class Collecting(_Session):
    """Normalise each batch by its own statistics, as in training, and pool them over batches.

    Pooled variance is the mean of the variances plus the variance of the means (law of total variance), times
    N / (N - 1). Nothing of the layers changes. With one batch that is the whole calibration set, this is exact.

    Args:
        architectures: How many a batched forward holds; 1 if none.
    """

    def __init__(self, architectures: int = 1) -> None:
        self.architectures = architectures
        self._sums: dict[BatchNorm, tuple[Tensor, Tensor, Tensor]] = {}
        self._kind = torch.float32

    def normalise(self, layer: BatchNorm, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W), or the stacked batches of several architectures, each by itself."""
        rows = _state.rows or (0,)
        count = x.shape[0] // len(rows) * x.shape[2] * x.shape[3]
        if count < 2:
            raise UserError(
                "bn: one value a channel has no variance "
                f"(batch of {x.shape[0] // len(rows)} at {x.shape[2]}x{x.shape[3]}); "
                "calibrate with batches of at least 2 pictures"
            )
        if len(rows) > 1 and x.is_cuda:
            stacked = x.unflatten(0, (len(rows), -1))
            var, mean = torch.var_mean(stacked.to(_wide(x)), (1, 3, 4), correction=0)
            self._add(layer, rows, count, mean, var)
            return _scaled(layer, stacked, mean, var).flatten(0, 1)
        # With momentum 1 the layer's own function leaves mean and variance where running ones would be: one pass.
        mean, var = (torch.zeros(len(rows), x.shape[1], dtype=_wide(x), device=x.device) for _ in range(2))
        found = _each(layer, x, mean, var, training=True)
        self._add(layer, rows, count, mean, var * ((count - 1) / count))
        return found

    def _add(self, layer: BatchNorm, rows: tuple[int, ...], count: int, mean: Tensor, var: Tensor) -> None:
        self._kind = torch.promote_types(self._kind, mean.dtype)
        mean, var = mean.detach().double(), var.detach().double()
        if layer not in self._sums:
            zeros = mean.new_zeros(self.architectures, mean.shape[1])
            self._sums[layer] = (mean.new_zeros(self.architectures, 1), zeros, zeros.clone())
        n, first, second = self._sums[layer]
        index = torch.tensor(rows, device=mean.device)
        n.index_add_(0, index, torch.full((len(rows), 1), float(count), dtype=n.dtype, device=n.device))
        first.index_add_(0, index, mean * count)
        second.index_add_(0, index, (var + mean**2) * count)

    def moments(self) -> dict[BatchNorm, Moments]:
        """What was collected, by layer; rows of architectures that do not use a layer hold NaN.

        Returns:
            Shapes (C,) for one architecture, (G, C) for several; float32, or float64 where activations are.
        """
        found = {}
        for layer, (n, first, second) in self._sums.items():
            mean = first / n
            var = (second / n - mean**2).clamp_min(0) * (n / (n - 1))
            pair = (mean.to(self._kind), var.to(self._kind))
            found[layer] = Moments(pair[0][0], pair[1][0]) if self.architectures == 1 else Moments(*pair)
        return found


class Applying(_Session):
    """Normalise by given statistics, as ``eval()`` does by running ones; layers without any are refused.

    Args:
        moments: From :meth:`Collecting.moments`.
    """

    def __init__(self, moments: dict[BatchNorm, Moments]) -> None:
        self.moments = moments

    def normalise(self, layer: BatchNorm, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W), or the stacked batches of several architectures, each by its own statistics."""
        if layer not in self.moments:
            raise UserError("bn: a layer of this path has no statistics; re-estimate them for this genotype")
        mean, var = self.moments[layer]
        if mean.dim() == 1:
            return functional.batch_norm(x, mean, var, *layer.scale_and_shift(x.shape[1]), False, 0.0, layer.eps)
        rows = _state.rows or (0,)
        index = torch.tensor(rows, device=mean.device)
        if not x.is_cuda:
            return _each(layer, x, mean[index], var[index], training=False)
        stacked = x.unflatten(0, (len(rows), -1))
        return _scaled(layer, stacked, mean[index], var[index]).flatten(0, 1)


def _wide(x: Tensor) -> torch.dtype:
    """What statistics of activations are kept in."""
    return torch.promote_types(x.dtype, torch.float32)


def _each(layer: BatchNorm, x: Tensor, mean: Tensor, var: Tensor, *, training: bool) -> Tensor:
    """One architecture after another: on a CPU the fastest, for each stays in its caches."""
    affine, parts = layer.scale_and_shift(x.shape[1]), x.chunk(len(mean))
    if len(parts) == 1:
        return functional.batch_norm(x, mean[0], var[0], *affine, training, 1.0, layer.eps)
    if torch.is_grad_enabled():
        done = [
            functional.batch_norm(part, m, v, *affine, training, 1.0, layer.eps)
            for part, m, v in zip(parts, mean, var, strict=True)
        ]
        return torch.cat(done)
    found = torch.empty_like(x)
    for part, to, m, v in zip(parts, found.chunk(len(mean)), mean, var, strict=True):
        unused = (m.new_empty(0), m.new_empty(0))
        torch.native_batch_norm(part, *affine, m, v, training, 1.0, layer.eps, out=(to, *unused))
    return found


def _scaled(layer: BatchNorm, stacked: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """(G, B, C, H, W) normalised by (G, C)."""
    scale = (var + layer.eps).rsqrt()
    weight, bias = layer.scale_and_shift(scale.shape[1])
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    if bias is not None:
        shift = shift + bias
    found = torch.addcmul(shift[:, None, :, None, None], stacked, scale[:, None, :, None, None])
    return found.to(stacked.dtype)
