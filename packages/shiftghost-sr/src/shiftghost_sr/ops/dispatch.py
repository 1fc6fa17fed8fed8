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

__all__ = ["BACKENDS", "activation_code", "kernel_runs", "unfit"]

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


def kernel_runs(backend: str, maps: Tensor, acts: Sequence[Activation]) -> bool:
    """Whether the Triton kernel runs, rather than convolutions of torch.

    Args:
        backend: ``auto``, ``torch`` or ``triton``.
        maps: One of the tensors.
        acts: What each is activated by.

    Raises:
        UserError: If ``triton`` was asked for and cannot run.
    """
    if backend == "triton":
        if reason := unfit(acts):
            raise UserError(f"backend='triton' {reason}; use backend='auto' or 'torch'")
        check_runs(maps.device, {maps.dtype})
        return True
    if backend == "torch" or maps.device.type != "cuda" or torch.compiler.is_compiling():
        return False
    reason = unfit(acts) or why_not(maps.device, {maps.dtype}, auto=True)
    if reason:
        _say(reason)
    return not reason


@functools.cache
def _say(reason: str) -> None:
    _log.warning("folded convolutions run by torch (the Triton kernel: %s)", reason)
