"""Which implementation of the inner block runs for an input, decided in one place."""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch
from torch import Tensor

from effkit.errors import UserError

__all__ = ["fused_available", "resolve_backend"]


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def fused_available(device: torch.device) -> bool:
    """Whether the fused Triton kernel can run for tensors on ``device``."""
    return _has_triton() and (device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1")


def resolve_backend(backend: str, x: Tensor, *, training: bool) -> str | None:
    """Name of the fused kernel to use for the words of ``x``, or ``None`` for plain torch.

    ``auto`` takes the fused kernel on CUDA when no gradient is asked for: its backward pass recomputes the block in
    torch, which saves memory rather than time.

    Args:
        backend: ``auto``, ``torch``, ``reference`` or ``fused``.
        x: The input pictures; only device and gradient mode matter.
        training: Whether the model is in training mode.

    Raises:
        ValueError: If ``fused`` is asked for where it cannot run.
    """
    if backend == "fused":
        if not fused_available(x.device):
            raise UserError(
                f"backend='fused' needs a CUDA device and triton (or TRITON_INTERPRET=1), the input is on {x.device}; "
                "use backend='auto' or 'torch'"
            )
        return "triton"
    if backend == "auto" and x.device.type == "cuda" and not training and not torch.is_grad_enabled() and _has_triton():
        return "triton"
    return None
