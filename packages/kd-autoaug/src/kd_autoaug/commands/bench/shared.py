"""What the benchmarks share: the pictures they work on, and our sides by the names that users give."""

from __future__ import annotations

import torch
from torch import Tensor

from kd_autoaug.ops.parity import sample_pictures

__all__ = ["OURS", "photographs"]

OURS = {"ours": "auto", "torch": "torch", "pil": "pil", "triton": "triton"}
"""Provider -> backend of the operators."""


def photographs(batch: int, size: int) -> Tensor:
    """Crops of scikit-learn's two photographs, uint8 ``(B, 3, size, size)``."""
    return torch.stack([sample_pictures(size, size, seed)["photograph"] for seed in range(batch)])
