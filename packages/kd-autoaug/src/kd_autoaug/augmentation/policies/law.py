"""From a level to an operator's argument, step by step as the original codes do it, so that no rounding differs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["HEIGHT", "NO_SIDE", "WIDTH", "Law", "evaluate", "stack"]

NO_SIDE, WIDTH, HEIGHT = 0, 1, 2


@dataclass(frozen=True)
class Law:
    """How an argument grows with the level.

    With ``f`` = level / the space's denominator, in this order and in float64::

        x = f * scale;  int(x) if truncate == "scaled";  min(x, cap);  x * direction;  +-x if sign == "scaled"
        y = offset + x;  int(y) if truncate == "total";  sqrt(y) if root;  clamp to lowest..highest
        +-y if sign == "total";  y * width or height if side

    The steps are separate because the order decides about the last bit, and ``int`` and truncation to bytes turn a last
    bit into a picture that differs.
    """

    scale: float = 0.0
    offset: float = 0.0
    truncate: str = ""
    sign: str = ""
    direction: float = 1.0
    cap: float = math.inf
    lowest: float = -math.inf
    highest: float = math.inf
    root: bool = False
    side: int = NO_SIDE

    def coefficients(self) -> list[float]:
        """The row of :func:`stack`'s table."""
        flags = self.truncate == "scaled", self.truncate == "total", self.sign == "scaled", self.sign == "total"
        numbers = self.scale, self.offset, self.direction, self.cap, self.lowest, self.highest, self.root
        return [float(v) for v in (*numbers, *flags)]

    def at(self, fraction: float, negative: bool) -> float:
        """One argument before the factor of the side: :func:`evaluate` in plain numbers, rounding by rounding."""
        x = fraction * self.scale
        x = min(float(math.trunc(x)) if self.truncate == "scaled" else x, self.cap) * self.direction
        y = self.offset + (-x if negative and self.sign == "scaled" else x)
        y = float(math.trunc(y)) if self.truncate == "total" else y
        y = math.sqrt(max(y, 0.0)) if self.root else y
        y = min(max(y, self.lowest), self.highest)
        return -y if negative and self.sign == "total" else y


def stack(laws: Sequence[Law]) -> Tensor:
    """Coefficients of E laws for :func:`evaluate`, float64 ``(11, E)``."""
    return torch.tensor([law.coefficients() for law in laws], dtype=torch.float64).t().contiguous()


def evaluate(coefficients: Tensor, fraction: Tensor, negative: Tensor) -> Tensor:
    """Arguments of many levels at once, before the factor of the side.

    Args:
        coefficients: A law each, float64 ``(11, ...)``.
        fraction: Level / denominator, float64 ``(...)``.
        negative: Whether the sign drawn is minus, bool ``(...)``; laws without a sign do not look.

    Returns:
        Arguments, float64 ``(...)``.
    """
    scale, offset, direction, cap, lowest, highest, root, cut, cut_total, signed, signed_total = coefficients.unbind()
    x = fraction * scale
    x = torch.minimum(torch.where(cut > 0, x.trunc(), x), cap) * direction
    x = torch.where(negative & (signed > 0), -x, x)
    y = offset + x
    y = torch.where(cut_total > 0, y.trunc(), y)
    y = torch.where(root > 0, y.clamp(min=0).sqrt(), y)
    y = torch.minimum(torch.maximum(y, lowest), highest)
    return torch.where(negative & (signed_total > 0), -y, y)
