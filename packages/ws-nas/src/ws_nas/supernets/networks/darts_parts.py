"""Operations of DARTS cells (Liu et al., ICLR 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ws_nas.supernets.networks.parts import Norm

__all__ = ["OPERATIONS", "DropPath", "FactorizedReduce", "make_operation", "relu_conv_norm"]

OPERATIONS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""What an edge may be; ``none`` exists in mixtures only, and is never derived."""


def relu_conv_norm(source: int, target: int, kernel: int, stride: int, norm: Norm) -> nn.Sequential:
    """ReLU, convolution, norm."""
    return nn.Sequential(nn.ReLU(), nn.Conv2d(source, target, kernel, stride, kernel // 2, bias=False), norm(target))


class FactorizedReduce(nn.Module):
    """Half the side without losing pixels: two 1 x 1 convolutions of stride 2, one a pixel further than the other."""

    def __init__(self, source: int, target: int, norm: Norm) -> None:
        super().__init__()
        self.here = nn.Conv2d(source, target // 2, 1, 2, bias=False)
        self.further = nn.Conv2d(source, target - target // 2, 1, 2, bias=False)
        self.norm = norm(target)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, source, H, W) to (B, target, H / 2, W / 2); sides are even."""
        x = nn.functional.relu(x)
        return self.norm(torch.cat([self.here(x), self.further(x[:, :, 1:, 1:])], 1))


def _depthwise(channels: int, kernel: int, stride: int, dilation: int, norm: Norm) -> list[nn.Module]:
    pad = dilation * (kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, pad, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        norm(channels),
    ]


def make_operation(name: str, channels: int, stride: int, norm: Norm, pool_norm: bool) -> nn.Module:
    """One operation.

    Args:
        name: One of :data:`OPERATIONS`.
        channels: In and out.
        stride: 1 or 2.
        norm: Makes the norms.
        pool_norm: Whether a norm follows the pools, as in search networks.
    """
    if name.endswith("pool_3x3"):
        pool = (
            nn.MaxPool2d(3, stride, 1)
            if name.startswith("max")
            else nn.AvgPool2d(3, stride, 1, count_include_pad=False)
        )
        return nn.Sequential(pool, norm(channels)) if pool_norm else pool
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, norm)
    kernel = int(name[-1])
    if name.startswith("sep"):
        first = _depthwise(channels, kernel, stride, 1, norm)
        return nn.Sequential(*first, *_depthwise(channels, kernel, 1, 1, norm))
    return nn.Sequential(*_depthwise(channels, kernel, stride, 2, norm))


class DropPath(nn.Module):
    """Drops what an edge gives to some pictures in training, and scales the others up.

    Attributes:
        p: How often; set while training goes on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.p = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        if not self.training or self.p <= 0:
            return x
        keep = torch.empty(len(x), 1, 1, 1, device=x.device, dtype=x.dtype).bernoulli_(1 - self.p)
        return x / (1 - self.p) * keep
