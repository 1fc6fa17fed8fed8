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

    def __getstate__(self) -> dict[str, Any]:
        """Nothing in it outlives a step."""
        return {"_held": {}}

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
