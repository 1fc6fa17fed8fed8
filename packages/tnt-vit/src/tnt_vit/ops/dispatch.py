"""Whether a fused inner block runs for an input, decided in one place."""

from __future__ import annotations

import torch

from effkit.errors import UserError
from effkit.triton import installed, interpreted

__all__ = ["fused_available", "resolve_backend"]


def fused_available(device: torch.device) -> bool:
    """Whether the fused Triton kernel can run for tensors on ``device``."""
    return installed() and (device.type == "cuda" or interpreted())


def resolve_backend(backend: str, device: torch.device, *, training: bool) -> str | None:
    """Backend of :func:`tnt_vit.ops.inner_block` for words on ``device``, or ``None`` for the modules one by one.

    ``auto`` leaves the choice to ``tnt_vit.ops`` on CUDA when no gradient is asked for. With one, it stays with the
    modules: the fused backward pass keeps nothing but a block's input, but its speed has not been measured.

    Args:
        backend: ``auto``, ``torch``, ``reference`` or ``fused``.
        device: Where the input pictures are.
        training: Whether the model is in training mode.

    Raises:
        ValueError: If ``fused`` is asked for where it cannot run.
    """
    if backend == "fused":
        if not fused_available(device):
            raise UserError(
                f"backend='fused' needs a CUDA device and triton (or TRITON_INTERPRET=1), the input is on {device}; "
                "use backend='auto' or 'torch'"
            )
        return "triton"
    if backend == "auto" and device.type == "cuda" and not training and not torch.is_grad_enabled():
        return "auto"
    return None
