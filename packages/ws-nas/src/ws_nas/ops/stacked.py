"""Layers of several networks at once, each network with weights of its own.

Activations are (K, C, B, P): network, channel, picture, pixel in rows. In this layout a 1 x 1 convolution is one
batched product, a norm reduces contiguous rows, and a depthwise convolution of a small picture is a product with the
P x P' matrix of its kernel: all without copies.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["DENSE_SIDE", "out_side", "stacked_conv", "stacked_linear", "stacked_norm"]

DENSE_SIDE = 8
"""Largest side of pictures whose depthwise convolutions are matrices; larger ones go through grouped convolutions."""


def out_side(side: int, stride: int) -> int:
    """Side after a convolution with 'same' padding."""
    return (side - 1) // stride + 1


@functools.lru_cache(maxsize=64)
def _taps(side: int, kernel: int, stride: int) -> Tensor:
    """Which tap of a kernel joins which pixels: (P, P') of its number, or kernel^2 where none does."""
    after, pad = out_side(side, stride), kernel // 2
    pixel, place = torch.arange(side), torch.arange(after) * stride
    offset = pixel[:, None] - place[None, :] + pad  # (side, after), the same for rows and columns
    inside = (offset >= 0) & (offset < kernel)
    rows, columns = offset[:, None, :, None], offset[None, :, None, :]
    both = inside[:, None, :, None] & inside[None, :, None, :]
    return torch.where(both, rows * kernel + columns, kernel**2).reshape(side**2, after**2)


@functools.lru_cache(maxsize=64)
def _joins(side: int, kernel: int, stride: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The same as ones and zeros (kernel^2, P * P'): a product with it makes matrices of kernels."""
    taps = _taps(side, kernel, stride).flatten()
    return functional.one_hot(taps, kernel**2 + 1)[:, :-1].T.to(device, dtype).contiguous()


def stacked_conv(x: Tensor, weight: Tensor, side: int, stride: int, groups: int) -> Tensor:
    """A convolution of each network with 'same' padding.

    Args:
        x: (K, C, B, P) with P = side^2.
        weight: (K, C', C / groups, k, k).
        side: Of the pictures.
        stride: Of the convolution.
        groups: 1, or C for a depthwise one.

    Returns:
        (K, C', B, P').
    """
    nets, channels, batch, _ = x.shape
    kernel, after = weight.shape[-1], out_side(side, stride)
    if groups == 1 and kernel == 1:
        if stride > 1:
            x = x.unflatten(3, (side, side))[..., ::stride, ::stride]
        return torch.bmm(weight.flatten(2), x.reshape(nets, channels, batch * after**2)).unflatten(2, (batch, -1))
    if groups == channels == weight.shape[1] and side <= DENSE_SIDE:
        joins = _joins(side, kernel, stride, weight.dtype, weight.device)
        matrices = (weight.reshape(nets * channels, kernel**2) @ joins).view(nets * channels, side**2, after**2)
        return torch.bmm(x.reshape(nets * channels, batch, -1), matrices).view(nets, channels, batch, -1)
    if groups == 1 and side <= DENSE_SIDE and not x.requires_grad:  # a stem: its pictures need no gradient
        taps = _gathers(side, kernel, stride).to(x.device)
        around = functional.pad(x, (0, 1))[..., taps].unflatten(3, (kernel**2, -1))  # (K, C, B, k^2, P')
        columns = around.permute(0, 1, 3, 2, 4).reshape(nets, channels * kernel**2, batch * after**2)
        return torch.bmm(weight.flatten(2), columns).unflatten(2, (batch, -1))
    pictures = x.permute(2, 0, 1, 3).reshape(batch, nets * channels, side, side)
    found = functional.conv2d(pictures, weight.flatten(0, 1), None, stride, kernel // 2, 1, nets * groups)
    return found.reshape(batch, nets, -1, after**2).permute(1, 2, 0, 3).contiguous()


@functools.lru_cache(maxsize=64)
def _gathers(side: int, kernel: int, stride: int) -> Tensor:
    """Which pixel each tap of a kernel sees at each place: (k^2 * P'), P where it is outside."""
    taps = _taps(side, kernel, stride)
    found = torch.full((kernel**2 + 1, taps.shape[1]), side**2)
    pixel, place = torch.arange(taps.shape[0])[:, None].expand_as(taps), torch.arange(taps.shape[1]).expand_as(taps)
    found[taps, place] = pixel
    return found[:-1].flatten()


def stacked_norm(
    x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor, *, training: bool, momentum: float, eps: float
) -> Tensor:
    """Batch normalisation of each network by its own batch, or its own running statistics.

    Args:
        x: (K, C, B, P).
        mean: (K, C), updated in training.
        var: (K, C), updated in training.
        weight: (K, C).
        bias: (K, C).
        training: Whether batches are normalised by themselves.
        momentum: Of the running statistics.
        eps: Added to variances.
    """
    rows = x.reshape(1, -1, x.shape[2] * x.shape[3])
    flat = (mean.view(-1), var.view(-1), weight.flatten(), bias.flatten())
    return functional.batch_norm(rows, *flat, training, momentum, eps).view(x.shape)


def stacked_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear map of each network.

    Args:
        x: (K, C, B).
        weight: (K, C', C).
        bias: (K, C').

    Returns:
        (K, B, C').
    """
    return torch.baddbmm(bias[:, None], x.transpose(1, 2), weight.transpose(1, 2))
