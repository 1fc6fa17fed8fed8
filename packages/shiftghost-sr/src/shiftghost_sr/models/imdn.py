"""IMDN (Hui et al. 2019) with the names of its release, and the smaller form that was NTIRE 2022's baseline."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shiftghost_sr.layers.config import GhostConfig
from shiftghost_sr.models.parts import body_conv, check_scale, conv

__all__ = ["IMDN"]

_SLOPE = 0.05


class _Attention(nn.Module):
    """Weights channels by their mean and their deviation over the frame."""

    def __init__(self, features: int, reduction: int = 16) -> None:
        super().__init__()
        down, up = conv(features, features // reduction, 1), conv(features // reduction, features, 1)
        self.conv_du = nn.Sequential(down, nn.ReLU(), up, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True)
        deviation = ((x - mean) ** 2).mean(dim=(2, 3), keepdim=True) ** 0.5
        return x * self.conv_du(deviation + mean)


class _Distillation(nn.Module):
    """Three convolutions that each set a quarter of their channels aside; a fourth makes the last quarter."""

    def __init__(self, features: int, ghost: GhostConfig | None, attention: bool) -> None:
        super().__init__()
        self.kept = features // 4
        self.rest = features - self.kept
        self.c1 = body_conv(features, features, ghost)
        self.c2, self.c3 = (body_conv(self.rest, features, ghost) for _ in range(2))
        self.c4 = conv(self.rest, self.kept)
        self.act = nn.LeakyReLU(_SLOPE)
        self.c5 = conv(features, features, 1)
        self.cca = _Attention(features) if attention else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        aside, rest = [], x
        for layer in (self.c1, self.c2, self.c3):
            kept, rest = torch.split(self.act(layer(rest)), [self.kept, self.rest], dim=1)
            aside.append(kept)
        aside.append(self.c4(rest))
        return self.c5(self.cca(torch.cat(aside, dim=1))) + x


class IMDN(nn.Module):
    """Pictures in 0..1.

    Args:
        scale: 2, 3 or 4.
        ghost: Kind of ghosts of the first three convolutions of each block.
        features: Channels.
        blocks: Distillation blocks.
        attention: Whether blocks weight their channels.
        fusion: Whether a 1x1 convolution joins the outputs of all blocks; otherwise only the last goes on.
    """

    channels, grid = 3, "lr"

    def __init__(
        self,
        scale: int,
        ghost: GhostConfig | None = None,
        *,
        features: int = 64,
        blocks: int = 6,
        attention: bool = True,
        fusion: bool = True,
    ) -> None:
        super().__init__()
        self.scale, self.fusion, self.count = check_scale("IMDN", scale, (2, 3, 4)), fusion, blocks
        self.fea_conv = conv(3, features)
        for i in range(1, blocks + 1):
            self.add_module(f"IMDB{i}", _Distillation(features, ghost, attention))
        if fusion:
            self.c = nn.Sequential(conv(blocks * features, features, 1), nn.LeakyReLU(_SLOPE))
        self.LR_conv = conv(features, features)
        self.upsampler = nn.Sequential(conv(features, 3 * scale**2), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 3, h, w)`` to ``(N, 3, scale h, scale w)``."""
        shallow = x = self.fea_conv(x)
        found = []
        for i in range(1, self.count + 1):
            x = getattr(self, f"IMDB{i}")(x)
            found.append(x)
        if self.fusion:
            x = self.c(torch.cat(found, dim=1))
        return self.upsampler(self.LR_conv(x) + shallow)
