"""Parts that several networks are made of; every norm comes from a factory, so that supernets can give their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["ACTIVATIONS", "Norm", "conv_norm", "copy_weights", "like", "plain_norm", "pooled", "thinned"]

Norm: TypeAlias = Callable[[int], nn.BatchNorm2d]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hswish": nn.Hardswish}


def plain_norm(affine: bool = True, track: bool = True) -> Norm:
    """Make ``nn.BatchNorm2d`` layers."""
    return lambda channels: nn.BatchNorm2d(channels, affine=affine, track_running_stats=track)


def conv_norm(
    source: int, target: int, kernel: int, stride: int, norm: Norm, *, groups: int = 1, activation: str | None = None
) -> nn.Sequential:
    """A convolution with 'same' padding and no bias, its norm, and an activation if one is named."""
    conv = nn.Conv2d(source, target, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, norm(target), *([ACTIVATIONS[activation]()] if activation else []))


def pooled(x: Tensor) -> Tensor:
    """Global average: (B, C, H, W) to (B, C)."""
    return x.mean((2, 3))


def thinned(x: Tensor, p: float) -> Tensor:
    """Pictures with a share of them zeroed, and the others raised so that the mean stays: ``(B, C, H, W)``."""
    keep = torch.empty(len(x), 1, 1, 1, device=x.device, dtype=x.dtype).bernoulli_(1 - p)
    return x * keep / (1 - p)


def like(module: nn.Module, other: nn.Module) -> nn.Module:
    """Bring a module to the device and the precision of another's parameters."""
    first = next(other.parameters())
    return module.to(device=first.device, dtype=first.dtype)


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy parameters and buffers into a module of the same shape; the copies share no memory.

    Raises:
        RuntimeError: If the shapes differ, which is a fault of ours.
    """
    target.load_state_dict({name: value.detach().clone() for name, value in source.state_dict().items()})
