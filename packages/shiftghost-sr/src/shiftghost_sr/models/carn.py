"""CARN and CARN-M (Ahn et al. 2018), multi-scale, with the names of CARN-pytorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shiftghost_sr.layers.config import GhostConfig
from shiftghost_sr.models.parts import MeanShift, body_conv, check_scale, conv

__all__ = ["CARN"]


class _Basic(nn.Module):
    """A 1x1 convolution and its activation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(inputs, outputs, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class _Residual(nn.Module):
    """Two 3x3 convolutions beside an identity; with groups a 1x1 convolution mixes them again."""

    def __init__(self, features: int, ghost: GhostConfig | None, groups: int, mixes: bool) -> None:
        super().__init__()
        first = body_conv(features, features, ghost, groups)
        body = [first, nn.ReLU(), body_conv(features, features, ghost, groups)]
        self.body = nn.Sequential(*body, *([nn.ReLU(), conv(features, features, 1)] if mixes else []))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.body(x))


class _Cascade(nn.Module):
    """Three blocks, all outputs so far joined and mixed after each."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.c1, self.c2, self.c3 = (_Basic(i * features, features) for i in (2, 3, 4))

    def blocks(self) -> list[nn.Module]:
        """The three blocks in their order; each subclass says whether they are three or one three times."""
        raise NotImplementedError

    def cascade(self, x: Tensor) -> Tensor:
        joined, out = x, x
        for block, mix in zip(self.blocks(), (self.c1, self.c2, self.c3), strict=True):
            joined = torch.cat([joined, block(out)], dim=1)
            out = mix(joined)
        return out


class _Block(_Cascade):
    def __init__(self, features: int, ghost: GhostConfig | None, groups: int, shared: bool) -> None:
        super().__init__(features)
        self.b1 = _Residual(features, ghost, groups, shared)
        if not shared:
            self.b2, self.b3 = (_Residual(features, ghost, groups, shared) for _ in range(2))
        self.shared = shared

    def blocks(self) -> list[nn.Module]:
        return [self.b1] * 3 if self.shared else [self.b1, self.b2, self.b3]

    def forward(self, x: Tensor) -> Tensor:
        return self.cascade(x)


class _Up(nn.Module):
    def __init__(self, features: int, scale: int, groups: int) -> None:
        super().__init__()
        body: list[nn.Module] = []
        for step in [3] if scale == 3 else [2] * (scale.bit_length() - 1):
            body += [conv(features, step**2 * features, groups=groups), nn.ReLU(), nn.PixelShuffle(step)]
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class _Upsample(nn.Module):
    """One way up for every scale; a network of one scale takes its own, and keeps the others."""

    def __init__(self, features: int, scale: int, groups: int) -> None:
        super().__init__()
        self.up2, self.up3, self.up4 = (_Up(features, s, groups) for s in (2, 3, 4))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return {2: self.up2, 3: self.up3, 4: self.up4}[self.scale](x)


class CARN(_Cascade):
    """Pictures in 0..1.

    Args:
        scale: 2, 3 or 4; weights are of all three.
        ghost: Kind of ghosts of the 3x3 convolutions in the residual blocks.
        groups: 4 for CARN-M.
        shared: Whether the three residual blocks of a cascading block are one, as in CARN-M.
        features: Channels.
    """

    channels, grid = 3, "lr"

    def __init__(
        self,
        scale: int,
        ghost: GhostConfig | None = None,
        *,
        groups: int = 1,
        shared: bool = False,
        features: int = 64,
    ) -> None:
        super().__init__(features)
        self.scale = check_scale("CARN", scale, (2, 3, 4))
        self.sub_mean, self.add_mean = MeanShift(-1), MeanShift(1)
        self.entry = conv(3, features)
        self.b1, self.b2, self.b3 = (_Block(features, ghost, groups, shared) for _ in range(3))
        self.upsample = _Upsample(features, scale, groups)
        self.exit = conv(features, 3)

    def blocks(self) -> list[nn.Module]:
        """The cascading blocks."""
        return [self.b1, self.b2, self.b3]

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 3, h, w)`` to ``(N, 3, scale h, scale w)``."""
        x = self.cascade(self.entry(self.sub_mean(x)))
        return self.add_mean(self.exit(self.upsample(x)))
