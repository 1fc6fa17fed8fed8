"""Random words, and what a policy does, drawn by one launch each; the bits of the tensor operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from effkit.triton import kernels, launch, power_of_two
from kd_autoaug.ops.layers import Layer
from kd_autoaug.ops.operators import Op

__all__ = ["BOX_STYLES", "NOISES", "Draw", "draw_layers", "draw_words"]

NOISES = ("none", "uniform", "normal")
BOX_STYLES = ("none", "half", "rectangle", "rectangle_or_dot", "centred")

_BLOCK = 128
# Fused multiply-adds would round once where the tensor operations round twice.
_EXACT: dict[str, Any] = {"fuse": False, "stages": None}


@dataclass(frozen=True)
class Draw:
    """A policy as the kernel reads it; E entries, tensors on the device where it draws.

    Attributes:
        layers: Operators per picture.
        op: int64 ``(E,)``.
        threshold: Probability times 2^32, float64 ``(E,)``.
        level: Of each entry, float64 ``(E,)``.
        argument: float64 ``(E, bins, 2)``; with noise the factors of the sides, ``(E,)``.
        interpolation: Those to draw from, int64.
        numbers: float64 ``(4,)``: deviation and upper bound of the noise, the space's denominator, the narrowest blur.
        weight: Of the rows, int64, or ``None``.
        law: float64 ``(11, E)`` where there is noise.
        quantiles: float64 ``(65536,)`` where the noise is normal.
        stream: Of the first layer.
        rows: Sub-policies, or operators to draw from.
        slots: Entries of a row.
        bins: Levels to draw from.
        draws: Whether each layer draws a row of its own.
        long: Whether more than four words of a stream are read.
        noise: One of ``NOISES``.
        cutout: Whether an entry is a cutout.
        boxes: One of ``BOX_STYLES``.
        blur: Whether an entry is a Gaussian blur.
        chains: Chains whose length is drawn; 0: none.
        longest: Operators of such a chain at most.
        mixture_stream: The stream of the chains' lengths.
    """

    layers: int
    op: Tensor
    threshold: Tensor
    level: Tensor
    argument: Tensor
    interpolation: Tensor
    numbers: Tensor
    weight: Tensor | None
    law: Tensor | None
    quantiles: Tensor | None
    stream: int
    rows: int
    slots: int
    bins: int
    draws: bool
    long: bool
    noise: str
    cutout: bool
    boxes: str
    blur: bool
    chains: int = 0
    longest: int = 1
    mixture_stream: int = 0


def _signed(word: int) -> int:
    """32 bits as the int32 that has them, so that kernels are not compiled anew for large numbers."""
    return word - (1 << 32) if word >> 31 else word


def _key(seed: int, index: Tensor, view: Tensor | int) -> tuple[list[Any], list[int]]:
    """Arguments of a kernel for samples and views, and for the seed."""
    if isinstance(view, Tensor) and view.ndim:
        views = [view, view.stride(0), 0]
    else:
        views = [None, 0, _signed(int(view) & 0xFFFFFFFF)]
    return [index, index.stride(0), *views], [_signed(seed & 0xFFFFFFFF), _signed(seed >> 32)]


def draw_layers(draw: Draw, seed: int, index: Tensor, view: Tensor | int, size: tuple[int, int]) -> list[Layer]:
    """What a policy does to each picture, in one launch.

    Args:
        draw: The policy.
        seed: 0 to 2^64 - 1.
        index: The samples' numbers, int64 ``(B,)``.
        view: The view's number, one for all or int64 ``(B,)``.
        size: Height and width of the pictures.

    Returns:
        Its layers.
    """
    layers, batch, device = draw.layers, len(index), index.device
    op, how = (torch.empty(layers, batch, dtype=torch.int64, device=device) for _ in range(2))
    arg = torch.empty(layers, batch, dtype=torch.float64, device=device)
    box = torch.empty(layers, batch, 4, dtype=torch.int64, device=device)
    key, seeds = _key(seed, index, view)
    if batch:
        launch(
            kernels(__package__, "draw_kernel").draw_kernel,
            (-(-batch // _BLOCK), layers),
            op,
            arg,
            how,
            box,
            *key,
            draw.op,
            draw.threshold,
            draw.level,
            draw.argument,
            draw.interpolation,
            draw.weight,
            draw.law,
            draw.quantiles,
            draw.numbers,
            *seeds,
            batch,
            *size,
            draw.stream,
            len(draw.op),
            draw.rows,
            draw.slots,
            draw.bins,
            len(draw.interpolation),
            draw.mixture_stream,
            DRAWS=draw.draws,
            LONG=draw.long,
            NOISE=NOISES.index(draw.noise),
            CUTOUT=int(Op.CUTOUT) if draw.cutout else None,
            STYLE=BOX_STYLES.index(draw.boxes),
            BLUR=int(Op.GAUSSIAN_BLUR) if draw.blur else None,
            CHAINS=draw.chains,
            LONGEST=draw.longest,
            BLOCK=_BLOCK,
            ROWS=power_of_two(draw.rows),
            **_EXACT,
        )
    return [Layer(op[k], arg[k], how[k], box[k], draw.blur) for k in range(layers)]


def draw_words(seed: int, index: Tensor, view: Tensor | int, streams: Sequence[int], count: int) -> Tensor:
    """Random words of several streams in one launch; see :func:`kd_autoaug.augmentation.rng.words_of`.

    Returns:
        Words of 32 bits, int64 ``(S, count, B)``.
    """
    batch = len(index)
    out = torch.empty(len(streams), count, batch, dtype=torch.int64, device=index.device)
    key, seeds = _key(seed, index, view)
    if batch:
        launch(
            kernels(__package__, "draw_kernel").words_kernel,
            (-(-batch // _BLOCK), -(-count // 4), len(streams)),
            out,
            _labels(tuple(streams), index.device),
            *key,
            *seeds,
            batch,
            count,
            BLOCK=_BLOCK,
            **_EXACT,
        )
    return out


@lru_cache(maxsize=64)
def _labels(streams: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(streams, dtype=torch.int64).to(device)
