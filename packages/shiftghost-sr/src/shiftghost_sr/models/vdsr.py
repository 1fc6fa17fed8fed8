"""VDSR (Kim et al. 2016) with the names of pytorch-vdsr: a chain of convolutions on the large frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shiftghost_sr.layers.config import GhostConfig
from shiftghost_sr.models.parts import body_conv, check_scale, conv

__all__ = ["VDSR"]


class _Link(nn.Module):
    def __init__(self, features: int, ghost: GhostConfig | None) -> None:
        super().__init__()
        self.conv = body_conv(features, features, ghost, bias=False)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(x))


class VDSR(nn.Module):
    """Luminance in 0..1, upscaled before it goes in: the network adds what a bicubic picture lacks (``grid = "hr"``).

    Args:
        scale: What the input was upscaled by; the network is the same for all.
        ghost: Kind of ghosts of all convolutions but the first and the last.
        layers: Convolutions.
        features: Channels.
        channels: 1 for luminance.
    """

    grid = "hr"

    def __init__(
        self,
        scale: int,
        ghost: GhostConfig | None = None,
        *,
        layers: int = 20,
        features: int = 64,
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.scale, self.channels = check_scale("VDSR", scale, (2, 3, 4, 8)), channels
        self.input = conv(channels, features, bias=False)
        self.residual_layer = nn.Sequential(*[_Link(features, ghost) for _ in range(layers - 2)])
        self.output = conv(features, channels, bias=False)
        self.relu = nn.ReLU()
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """He's initialisation; the last convolution a hundredth of it, so that training starts near the input."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        self.output.weight.mul_(0.01)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, channels, H, W)``, as it goes in."""
        return self.output(self.residual_layer(self.relu(self.input(x)))) + x
