"""What the benchmark holds ours against: the official formulation of a path, and blocks built from it."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augshortcut.config import AugmentConfig
from augshortcut.layers.shortcut import AugmentedShortcut

__all__ = ["GatheredShortcut", "Residual", "gathered_block"]


class _Gathered(nn.Module):
    """One projection as the official code computes it: the dense matrix gathered by an index table in each call."""

    index: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        b_out, b_in, n = weight.shape
        self.vector = nn.Parameter(weight.detach().flatten().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        r = torch.arange(n)
        within = (r[:, None] - r[None, :]) % n
        start = torch.arange(b_out * b_in).view(b_out, 1, b_in, 1) * n
        self.register_buffer("index", (start + within.view(1, n, 1, n)).reshape(b_out * n, b_in * n))

    def forward(self, y: Tensor) -> Tensor:
        return F.linear(y, self.vector[self.index], self.bias)


class GatheredShortcut(nn.Module):
    """The paths of a sub-layer in the official formulation: each projection by itself, then GELU, then sums."""

    def __init__(self, shortcut: AugmentedShortcut) -> None:
        super().__init__()
        paths: Any = shortcut.paths
        weight, bias = paths.weight, paths.bias
        self.projections = nn.ModuleList(
            [_Gathered(w, None if bias is None else bias[t]) for t, w in enumerate(weight)]
        )

    def forward(self, y: Tensor) -> Tensor:
        """``(..., d) -> (..., d)``."""
        first, *others = (F.gelu(projection(y)) for projection in self.projections)
        for other in others:
            first = first + other
        return first


class Residual(nn.Module):
    """Both sub-layers' paths beside an identity, without attention and MLP: ``x + paths(x)``, twice."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        """``(..., d) -> (..., d)``."""
        x = x + self.first(x)
        return x + self.second(x)


def gathered_block(block: Any) -> nn.Module:
    """A copy of an augmented block whose paths are in the official formulation."""
    twin = copy.deepcopy(block)
    assert isinstance(twin.aug_config, AugmentConfig)
    twin.aug_attn, twin.aug_mlp = GatheredShortcut(twin.aug_attn), GatheredShortcut(twin.aug_mlp)
    return twin
