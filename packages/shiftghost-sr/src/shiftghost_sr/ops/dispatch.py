"""Which way a folded convolution runs, decided in one place."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from effkit.triton import check_runs, why_not
from shiftghost_sr.ops.halo_buffer import Activation

__all__ = ["BACKENDS", "activation_code", "kernel_runs", "too_large", "unfit"]

BACKENDS = ("auto", "torch", "triton")

_log = logging.getLogger(__name__)


def activation_code(act: Activation) -> tuple[int, float] | None:
    """A kernel's number for an activation, and its slope; ``None`` if it has none."""
    if act is None:
        return 0, 0.0
    if type(act) is nn.ReLU:
        return 1, 0.0
    if type(act) is nn.LeakyReLU:
        return 2, float(act.negative_slope)
    return None


def unfit(acts: Sequence[Activation]) -> str:
    """Why the kernel does not compute a folded convolution of tensors with these activations; empty if it does."""
    if len(acts) != 1:
        return f"reads one tensor, and a layer joins {len(acts)}"
    if activation_code(acts[0]) is None:
        return f"knows ReLU and LeakyReLU, and a layer has {type(acts[0]).__name__}"
    return ""


def too_large(*tensors: Tensor) -> bool:
    """Whether one picture of any of them is more than 32 bits can address, which the kernel counts in."""
    spans = [sum((n - 1) * step for n, step in zip(t.shape[1:], t.stride()[1:], strict=True)) for t in tensors]
    return max(spans) >= 1 << 31


def kernel_runs(backend: str, given: Sequence[Tensor], acts: Sequence[Activation]) -> bool:
    """Whether the Triton kernel runs, rather than convolutions of torch.

    Args:
        backend: ``auto``, ``torch`` or ``triton``.
        given: What a step is given: maps, or what they are made from, and what the result is added to.
        acts: What each tensor of maps is activated by.

    Raises:
        UserError: If ``triton`` was asked for and cannot run.
    """
    maps = given[-1]
    if backend == "triton":
        if reason := unfit(acts):
            raise UserError(f"backend='triton' {reason}; use backend='auto' or 'torch'")
        check_runs(maps.device, {maps.dtype})
        return True
    if backend == "torch" or maps.device.type != "cuda" or torch.compiler.is_compiling():
        return False
    reason = unfit(acts) or why_not(maps.device, {maps.dtype}, auto=True) or ""
    if not reason and too_large(*given):
        reason = "takes pictures of fewer than 2**31 numbers"
    if reason:
        _say(reason)
    return not reason


@functools.cache
def _say(reason: str) -> None:
    _log.warning("folded convolutions run by torch (the Triton kernel: %s)", reason)
