"""What a training step takes in memory and time, and the largest batch that fits."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from effkit.bench import inference, training_step
from effkit.errors import UserError
from effkit.timing.clock import wall_seconds
from effkit.timing.memory import MEMORY_MEANING, peak_bytes
from tnt_vit.survey.models import is_out_of_memory

__all__ = ["largest", "largest_batch", "train_cost"]

_REPEATS = 3
_MARGIN = 0.95  # of the largest batch that fitted: memory is never free to the last byte


def train_cost(model: nn.Module, size: int, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """One forward and backward pass in training mode.

    Args:
        model: With float32 weights; put back into evaluation mode afterwards.
        size: Side of the pictures.
        batch: Pictures a step.
        device: Where it is.
        dtype: What autocast computes in.

    Returns:
        ``batch``, ``seconds`` (median of 3 steps), ``peak_bytes`` beyond the weights, and what that means here; on a
        GPU ``reserved_bytes``, what torch took from it for all.
    """
    step = training_step(model, torch.randn(batch, 3, size, size, device=device), dtype)
    try:
        step()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        peak = peak_bytes(step, device)
        reserved = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
        seconds = statistics.median(wall_seconds(step, 1, device) for _ in range(_REPEATS))
    finally:
        model.zero_grad(set_to_none=True)
        model.eval()
    meaning = MEMORY_MEANING.get(device.type, "not measured on this device")
    found = {"batch": batch, "seconds": seconds, "peak_bytes": peak, "reserved_bytes": reserved}
    return {**found, "memory_meaning": meaning}


def largest(fits: Callable[[int], bool], most: int = 4096) -> int:
    """The largest number up to `most` that fits, by doubling and bisection.

    Args:
        fits: Whether a number does; if one does, smaller ones do.
        most: Where to stop.

    Returns:
        0 if not even 1 fits.
    """
    if not fits(1):
        return 0
    good, bad = 1, None
    while bad is None and good < most:
        trial = min(2 * good, most)
        good, bad = (trial, None) if fits(trial) else (good, trial)
    while bad is not None and bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def largest_batch(model: nn.Module, size: int, device: torch.device, dtype: torch.dtype) -> int:
    """The largest batch of inference that fits on a GPU, less 5 %.

    Raises:
        UserError: On a CPU, where the system swaps or kills and refuses nothing.
    """
    if device.type != "cuda":
        raise UserError(
            f"largest_batch=true needs a CUDA device: with device={device} memory is not refused but swapped"
        )

    def fits(batch: int) -> bool:
        try:
            inference(model, torch.randn(batch, 3, size, size, device=device, dtype=dtype))()
            torch.cuda.synchronize(device)
            return True
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            torch.cuda.empty_cache()

    found = largest(fits)
    return max(1, int(found * _MARGIN)) if found else 0
