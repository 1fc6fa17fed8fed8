"""RDN (Zhang et al. 2018), configuration B, with the names of torchSR."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shiftghost_sr.layers.config import GhostConfig
from shiftghost_sr.models.parts import body_conv, check_scale, conv

__all__ = ["RDN"]


class _DenseConv(nn.Module):
    def __init__(self, inputs: int, growth: int, ghost: GhostConfig | None) -> None:
        super().__init__()
        self.conv = body_conv(inputs, growth, ghost)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.relu(self.conv(x))], dim=1)


class _DenseBlock(nn.Module):
    def __init__(self, features: int, growth: int, layers: int, ghost: GhostConfig | None) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[_DenseConv(features + i * growth, growth, ghost) for i in range(layers)])
        self.lff = conv(features + layers * growth, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.lff(self.layers(x)) + x


class RDN(nn.Module):
    """Pictures in 0..1.

    Args:
        scale: 2, 3 or 4.
        ghost: Kind of ghosts of the 3x3 convolutions in the dense blocks.
        blocks: D.
        layers: C.
        features: G0.
        growth: G.
    """

    channels, grid = 3, "lr"

    def __init__(
        self,
        scale: int,
        ghost: GhostConfig | None = None,
        *,
        blocks: int = 16,
        layers: int = 8,
        features: int = 64,
        growth: int = 64,
    ) -> None:
        super().__init__()
        self.scale = check_scale("RDN", scale, (2, 3, 4))
        self.sfe1, self.sfe2 = conv(3, features), conv(features, features)
        self.rdbs = nn.ModuleList([_DenseBlock(features, growth, layers, ghost) for _ in range(blocks)])
        self.gff = nn.Sequential(conv(blocks * features, features, 1), conv(features, features))
        up: list[nn.Module] = [conv(features, growth * (4 if scale == 4 else scale**2))]
        up.append(nn.PixelShuffle(2 if scale == 4 else scale))
        if scale == 4:
            up += [conv(growth, growth * 4), nn.PixelShuffle(2)]
        self.upscale = nn.Sequential(*up)
        self.output = conv(growth, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 3, h, w)`` to ``(N, 3, scale h, scale w)``."""
        shallow = self.sfe1(x)
        x = self.sfe2(shallow)
        found = []
        for block in self.rdbs:
            x = block(x)
            found.append(x)
        return self.output(self.upscale(self.gff(torch.cat(found, dim=1)) + shallow))
