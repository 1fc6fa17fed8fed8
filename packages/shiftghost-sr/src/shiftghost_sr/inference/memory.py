"""Out of memory: recognised wherever it comes from, and answered with smaller tiles."""

from __future__ import annotations

import gc

import torch

__all__ = ["TILES", "is_out_of_memory", "release", "smaller"]

TILES = (512, 256, 128, 64, 32)
"""Sides that are tried one after the other where the user chose none."""

_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "cudnn_status_alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch (any device) or Python says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


def smaller(tile: int | None, size: tuple[int, int]) -> int | None:
    """The next side to try after ``tile`` (``None``: the whole picture) did not fit; ``None`` if there is none."""
    side = max(size) if tile is None else tile
    return next((candidate for candidate in TILES if candidate < side), None)


def release() -> None:
    """Give back what the failed attempt held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
