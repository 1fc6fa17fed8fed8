"""The method again, naive: shifts as depthwise convolutions with one-hot kernels, samplers word by word.

The specification of the fast paths; imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["chosen_direction", "ghost_conv", "one_hot", "sample", "shift", "training_kernel"]


def one_hot(direction: tuple[int, int], reach: int) -> Tensor:
    """The kernel ``(2 reach + 1, 2 reach + 1)`` that reads at a direction."""
    kernel = torch.zeros(2 * reach + 1, 2 * reach + 1, dtype=torch.float64)
    kernel[reach + direction[0], reach + direction[1]] = 1
    return kernel


def shift(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve every map ``(N, C, H, W)`` with one kernel, zeros outside; gradients reach the kernel."""
    channels, reach = x.shape[1], kernel.shape[-1] // 2
    weight = kernel.to(x.dtype).expand(channels, 1, *kernel.shape)
    return F.conv2d(x, weight, padding=reach, groups=channels)


def ghost_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, kernels: Sequence[Tensor], source: Sequence[int],
    kept: Sequence[int], ghosts: Sequence[int], groups: int = 1,
) -> Tensor:  # fmt: skip
    """A ghost convolution, channel by channel.

    Args:
        x: ``(N, inputs, H, W)``.
        weight: Of the computed maps, ``(n_I, inputs / groups, k, k)``.
        bias: ``(n_I,)``.
        kernels: Of each ghost's shift.
        source: Computed map of each ghost.
        kept: Channel of each computed map in the output.
        ghosts: Channel of each ghost.
        groups: Of the convolution.
    """
    f = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=groups)
    channels: dict[int, Tensor] = {c: f[:, i : i + 1] for i, c in enumerate(kept)}
    for channel, s, kernel in zip(ghosts, source, kernels, strict=True):
        channels[channel] = shift(f[:, s : s + 1], kernel)
    return torch.cat([channels[c] for c in sorted(channels)], dim=1)


def chosen_direction(logits: Tensor, estimator: str) -> int:
    """Which entry of a square of logits a shift takes: the largest, the nearest to the middle of equal ones."""
    side = round(logits.numel() ** 0.5)
    values = (logits.abs() if estimator == "official" else logits).flatten().tolist()
    distance = [(k // side - side // 2) ** 2 + (k % side - side // 2) ** 2 for k in range(len(values))]
    return min(range(len(values)), key=lambda k: (-values[k], distance[k], k))


def sample(logits: Tensor, uniform: Tensor, epoch: float, estimator: str, decay: float = 0.97) -> int:
    """The direction of a training step: Gumbel noise, whose scale falls by the epoch, on top of the logits."""
    noise = -torch.log(-torch.log(uniform))
    return chosen_direction(logits + noise * decay ** (epoch - 1), estimator)


def training_kernel(logits: Tensor, chosen: int, noisy: Tensor, estimator: str, tau: float = 1.0) -> Tensor:
    """One-hot in value; its gradient that of the logits themselves (official), or of their softmax."""
    hard = torch.zeros_like(logits).flatten()
    hard[chosen] = 1
    soft = logits if estimator == "official" else torch.softmax(noisy.flatten() / tau, 0).view_as(logits)
    return hard.view_as(logits) + soft - soft.detach()
