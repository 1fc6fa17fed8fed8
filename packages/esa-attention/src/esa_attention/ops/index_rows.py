"""Compressed keys in eight bits."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["quantised"]


def quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Round rows to int8 with one scale a row.

    A global scale would let one large key push all others into a few steps and break the order.

    Args:
        rows: ``(..., R)``.

    Returns:
        ``(..., R)`` int8 and ``(...)`` float32: a row is their product.
    """
    wide = rows.float()
    scale = torch.linalg.vector_norm(wide, torch.inf, dim=-1).div_(127)
    scale.masked_fill_(scale == 0, 1)
    return (wide / scale[..., None]).round_().to(torch.int8), scale
