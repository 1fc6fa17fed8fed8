"""What the CIFAR networks have in common: shaking of residual branches, and how weights begin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ShakeDrop", "ShakeShake", "he_init", "scale_samples"]


class _ScaleSamples(torch.autograd.Function):
    """Multiplies each picture by one factor on the way forward and its gradient by another on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
        ctx.save_for_backward(backward)
        return x * forward

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] * ctx.saved_tensors[0], None, None


def scale_samples(x: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """Return ``x * forward``, with ``backward`` in place of ``forward`` in the gradient.

    Args:
        x: ``(B, C, H, W)``.
        forward: ``(B, 1, 1, 1)``.
        backward: ``(B, 1, 1, 1)``.
    """
    return _ScaleSamples.apply(x, forward, backward)  # type: ignore[no-any-return]


def _uniform(x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.empty(len(x), 1, 1, 1, dtype=x.dtype, device=x.device).uniform_(low, high)


class ShakeShake(nn.Module):
    """Mixes two branches, ``a x1 + (1 - a) x2``, a random in [0, 1] for each picture and drawn anew for the gradient.

    In evaluation a = 0.5. Source: Gastaldi, "Shake-Shake regularization", 2017, the "shake-shake-image" variant.
    """

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Mix two ``(B, C, H, W)``."""
        if not self.training:
            return 0.5 * (first + second)
        forward, backward = _uniform(first), _uniform(first)
        return scale_samples(first, forward, backward) + scale_samples(second, 1 - forward, 1 - backward)


class ShakeDrop(nn.Module):
    """Keeps a residual branch with probability ``survival``, else multiplies it by a random number of either sign.

    The number is in [-1, 1] forward and in [0, 1] for the gradient, gate and numbers are drawn for each picture. In
    evaluation the branch is multiplied by the mean of the forward factor, which is ``survival``. Source: Yamada et al.,
    "ShakeDrop regularization for deep residual learning", 2019.

    Args:
        survival: Probability that the branch is kept, in [0, 1].
    """

    def __init__(self, survival: float) -> None:
        super().__init__()
        self.survival = survival

    def forward(self, x: Tensor) -> Tensor:
        """Scale ``(B, C, H, W)``."""
        if not self.training:
            return self.survival * x
        kept = (_uniform(x) < self.survival).to(x.dtype)
        shake = lambda low: kept + (1 - kept) * _uniform(x, low)
        return scale_samples(x, shake(-1.0), shake(0.0))

    def extra_repr(self) -> str:
        """The probability, for ``print``."""
        return f"survival={self.survival:g}"


def he_init(model: nn.Module) -> None:
    """Begin as He et al. 2015: convolutions normal with variance 2 / (outputs * area), batch norm 1 and 0, biases 0."""
    if any(p.is_meta for p in model.parameters()):
        return  # there is nothing to draw, and torch would load its compiler to find out
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
