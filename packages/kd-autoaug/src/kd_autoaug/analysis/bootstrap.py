"""Intervals by resampling pictures: what would the figure be for other pictures of the same kind?

Several statistics are resampled together, with the same pictures each time, so that their differences are paired. The
generator is seeded here and nothing global is drawn from.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from effkit.errors import UserError

__all__ = ["Estimate", "bootstrap"]

_CELLS = 4_000_000  # counts held at once: about 32 MB


class Estimate(NamedTuple):
    """A figure and its interval; NaN where there was nothing to divide by."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2


def bootstrap(
    values: Tensor,
    weights: Tensor | None = None,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Estimate]:
    """Percentile intervals of means, or of ratios of sums.

    Args:
        values: One column per statistic, ``(n, S)``: contributions of n pictures.
        weights: Denominators ``(n, S)``; the statistic is then ``values.sum() / weights.sum()``. 1 if not given.
        resamples: How often n pictures are drawn with replacement.
        level: Probability that the interval claims.
        seed: Of the draws; equal seeds draw equal pictures.

    Returns:
        One estimate per column.

    Raises:
        UserError: If an argument is out of range.
    """
    if values.ndim != 2 or len(values) < 1 or (weights is not None and weights.shape != values.shape):
        shapes = f"{tuple(values.shape)}" + (f" and {tuple(weights.shape)}" if weights is not None else "")
        raise UserError(f"values (and weights) must be (n, S) with n >= 1, got {shapes}")
    if resamples < 1:
        raise UserError(f"resamples={resamples!r} must be at least 1")
    if not 0 < level < 1:
        raise UserError(f"level={level!r} must be between 0 and 1")
    over = values.detach().double().cpu().numpy()
    under = np.ones_like(over) if weights is None else weights.detach().double().cpu().numpy()
    n = len(over)
    rng = np.random.default_rng(seed)
    drawn = np.empty((resamples, over.shape[1]))
    chunk = max(1, _CELLS // n)
    with np.errstate(invalid="ignore", divide="ignore"):
        for begin in range(0, resamples, chunk):
            rows = min(chunk, resamples - begin)
            counts = rng.multinomial(n, np.full(n, 1 / n), size=rows).astype(np.float64)
            drawn[begin : begin + rows] = (counts @ over) / (counts @ under)
        point = over.sum(0) / under.sum(0)
    return [_estimate(p, column, level) for p, column in zip(point, drawn.T, strict=True)]


def _estimate(point: float, drawn: np.ndarray, level: float) -> Estimate:
    drawn = drawn[np.isfinite(drawn)]  # a resample without any picture that counts says nothing
    if not np.isfinite(point) or not len(drawn):
        return Estimate(float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(point), float(low), float(high))
