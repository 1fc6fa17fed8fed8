"""Losses of super-resolution."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LOSSES", "charbonnier"]

Loss = Callable[[Tensor, Tensor], Tensor]


def charbonnier(output: Tensor, target: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Mean of ``sqrt(difference^2 + epsilon^2)``: L1 without its corner (Lai et al., LapSRN)."""
    return torch.sqrt((output - target) ** 2 + epsilon**2).mean()


LOSSES: dict[str, Loss] = {"l1": F.l1_loss, "mse": F.mse_loss, "charbonnier": charbonnier}
"""By the name that ``loss=NAME`` takes; pixels are 0..1."""
