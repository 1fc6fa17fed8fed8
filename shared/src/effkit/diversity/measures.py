r"""Measures of how different the tokens of one picture are, all from a matrix Z of N tokens.

``M`` is the set of matrices with equal rows; the nearest one to Z has the mean token in every row, so the residual is
:math:`R = Z - 1\bar z`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["MEASURES", "distance", "residual"]


def residual(tokens: Tensor) -> Tensor:
    """Tokens without their mean, ``(..., N, d)``."""
    return tokens - tokens.mean(dim=-2, keepdim=True)


def distance(tokens: Tensor) -> Tensor:
    """d_M: Frobenius distance to the nearest matrix of equal rows; ``(..., N, d) -> (...)``."""
    return torch.linalg.matrix_norm(residual(tokens))


def relative_residual(tokens: Tensor) -> float:
    """``|R| / |Z|``: 0 if all tokens are equal, near 1 if their mean vanishes."""
    return float(distance(tokens) / torch.linalg.matrix_norm(tokens).clamp_min(1e-300))


def composite(tokens: Tensor) -> float:
    """``sqrt(|R|_1 |R|_inf)`` (Dong et al., arXiv 2103.03404): largest column sum times largest row sum."""
    r = residual(tokens).abs()
    return math.sqrt(float(r.sum(dim=0).max() * r.sum(dim=1).max()))


def cosine(tokens: Tensor) -> float:
    """Mean cosine between different tokens: 1 if all point the same way. NaN for a single token."""
    count = tokens.shape[0]
    if count < 2:
        return math.nan
    unit = tokens / tokens.norm(dim=1, keepdim=True).clamp_min(1e-300)
    own = unit.square().sum()
    return float((unit.sum(dim=0).square().sum() - own) / (count * (count - 1)))


def effective_rank(tokens: Tensor) -> float:
    """``exp`` of the entropy of the normalised singular values of Z: 1 if all tokens are parallel."""
    values = torch.linalg.svdvals(tokens)
    shares = values / values.sum().clamp_min(1e-300)
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum()))


def high_frequency(tokens: Tensor) -> float:
    """Share of R's energy at the upper half of the frequencies along the tokens' order. 0 without any energy."""
    energy = torch.fft.rfft(residual(tokens), dim=0).abs().square().sum(dim=1)
    weight = torch.full_like(energy, 2.0)  # all but the lowest and, for even N, the highest stand for a pair
    weight[0] = 1.0
    if tokens.shape[0] % 2 == 0:
        weight[-1] = 1.0
    energy = energy * weight
    total = float(energy.sum())
    return float(energy[(len(energy) + 1) // 2 :].sum()) / total if total > 0 else 0.0


MEASURES: dict[str, Callable[[Tensor], float]] = {
    "relative_residual": relative_residual,
    "d_M": lambda tokens: float(distance(tokens)),
    "composite": composite,
    "cosine": cosine,
    "effective_rank": effective_rank,
    "high_freq": high_frequency,
}
"""By name; each takes the tokens ``(N, d)`` of one picture in float64."""
