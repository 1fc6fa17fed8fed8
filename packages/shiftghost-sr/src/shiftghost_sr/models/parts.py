"""What the networks are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from shiftghost_sr.layers.config import GhostConfig
from shiftghost_sr.layers.ghost_conv import GhostConv2d

__all__ = ["MEAN", "MeanShift", "body_conv", "check_scale", "conv", "upsampler"]

MEAN = (0.4488, 0.4371, 0.4040)
"""Of DIV2K's pictures, which EDSR and CARN are trained around; the same in every file of theirs."""


def check_scale(name: str, scale: int, allowed: tuple[int, ...]) -> int:
    """A scale that a network exists for.

    Raises:
        UserError: If it is no other.
    """
    if isinstance(scale, bool) or scale not in allowed:
        raise UserError(f"scale={scale!r} is not one of {', '.join(map(str, allowed))}, which {name} exists for")
    return scale


def conv(inputs: int, outputs: int, kernel: int = 3, groups: int = 1, bias: bool = True) -> nn.Conv2d:
    """A plain convolution that keeps the frame."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=bias)


def body_conv(inputs: int, outputs: int, ghost: GhostConfig | None, groups: int = 1, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution of the body: the kind that has ghosts, where the network has any."""
    if ghost is None:
        return conv(inputs, outputs, groups=groups, bias=bias)
    return GhostConv2d(inputs, outputs, 3, groups=groups, bias=bias, config=ghost)


class MeanShift(nn.Module):
    """``x`` less the mean of DIV2K, or with it again; holds no weights, so that it counts none."""

    mean: Tensor

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.register_buffer("mean", sign * torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shift ``(N, 3, H, W)``."""
        return x + self.mean


def upsampler(features: int, scale: int, outputs: int | None = None) -> list[nn.Module]:
    """Convolutions and shuffles of pixels, by two and two, or by three.

    Args:
        features: Channels, before and after.
        scale: A power of two, or three.
        outputs: Channels after it, where they differ; all at once then.
    """
    if outputs is not None:
        return [conv(features, outputs * scale**2), nn.PixelShuffle(scale)]
    if scale == 3:
        return [conv(features, 9 * features), nn.PixelShuffle(3)]
    return [m for _ in range(scale.bit_length() - 1) for m in (conv(features, 4 * features), nn.PixelShuffle(2))]
