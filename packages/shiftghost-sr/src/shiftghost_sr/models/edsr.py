"""EDSR (Lim et al. 2017), with the names of EDSR-PyTorch."""

from __future__ import annotations

from torch import Tensor, nn

from shiftghost_sr.layers.config import GhostConfig
from shiftghost_sr.models.parts import MeanShift, body_conv, check_scale, conv, upsampler

__all__ = ["EDSR", "ResidualBlock"]


class ResidualBlock(nn.Module):
    """Two convolutions beside an identity.

    Args:
        features: Channels.
        res_scale: What the block's own part is multiplied by.
        ghost: Kind of ghosts of both.
    """

    def __init__(self, features: int, res_scale: float, ghost: GhostConfig | None) -> None:
        super().__init__()
        first, second = body_conv(features, features, ghost), body_conv(features, features, ghost)
        self.body = nn.Sequential(first, nn.ReLU(), second)
        self.res_scale = res_scale

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)``, as it goes in."""
        own = self.body(x)
        return x + (own if self.res_scale == 1 else own * self.res_scale)


class EDSR(nn.Module):
    """Pictures in 0..1; weights are of EDSR-PyTorch's range 0..255.

    Args:
        scale: 2, 3, 4 or 8.
        ghost: Kind of ghosts of the convolutions in the blocks, as in the official code.
        blocks: Residual blocks.
        features: Channels.
        res_scale: Of the blocks.
    """

    channels, grid = 3, "lr"

    def __init__(
        self,
        scale: int,
        ghost: GhostConfig | None = None,
        *,
        blocks: int = 32,
        features: int = 256,
        res_scale: float = 0.1,
    ) -> None:
        super().__init__()
        self.scale = check_scale("EDSR", scale, (2, 3, 4, 8))
        self.sub_mean, self.add_mean = MeanShift(-1), MeanShift(1)
        self.head = nn.Sequential(conv(3, features))
        body: list[nn.Module] = [ResidualBlock(features, res_scale, ghost) for _ in range(blocks)]
        self.body = nn.Sequential(*body, conv(features, features))
        self.tail = nn.Sequential(nn.Sequential(*upsampler(features, scale)), conv(features, 3))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 3, h, w)`` to ``(N, 3, scale h, scale w)``."""
        x = self.head(self.sub_mean(x) * 255)
        return self.add_mean(self.tail(x + self.body(x)) / 255)
