"""Scratch memory that the layers of a cache share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from esa_attention.attention.cache.buffers import empty

__all__ = ["Workspace"]


class Workspace:
    """Scratch tensors shared by all layers of a cache: fresh memory costs more than the work done in it."""

    def __init__(self) -> None:
        self._held: dict[tuple[Any, ...], Tensor] = {}
        self._numbers: dict[tuple[str, torch.device], tuple[tuple[int, ...], Tensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing in it outlives a step."""
        return {"_held": {}, "_numbers": {}}

    def numbers(self, name: str, values: Sequence[int], device: torch.device) -> Tensor:
        """Whole numbers on a device, int64, not to be written to: copied there once for all layers of a pass."""
        held = self._numbers.get((name, device))
        if held is None or held[0] != tuple(values):
            held = tuple(values), torch.tensor(values, device=device)
            self._numbers[name, device] = held
        return held[1]

    def get(
        self, name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device, pin: bool = False
    ) -> Tensor:
        """A tensor of at least ``shape[0]`` rows; undefined contents, valid until asked for again by that name."""
        key = (name, dtype, device, tuple(shape[1:]))
        held = self._held.get(key)
        if held is None or held.shape[0] < shape[0]:
            rows = shape[0] if held is None else max(shape[0], held.shape[0] + held.shape[0] // 2)
            held = empty((rows, *shape[1:]), dtype, device, pin)
            self._held[key] = held
        return held[: shape[0]]

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return sum(t.numel() * t.element_size() for t in self._held.values())
