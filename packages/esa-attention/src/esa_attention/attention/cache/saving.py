"""A filled cache as plain tensors: what is kept of a prompt that was read, in a file or in a dictionary.

Only what cannot be worked out again is written: keys, values and index. Windows and choices are made anew.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from effkit.errors import UserError
from esa_attention.attention.cache.buffers import GrowingBuffer
from esa_attention.attention.cache.layer import ESALayer
from esa_attention.compression.tensor_files import read_json, read_tensors, write_tensors
from esa_attention.config import ESAConfig

__all__ = ["fill_cache", "read_cache", "save_cache"]

KIND = "esa-attention cache"
CONFIG = "config"


class Saved(Protocol):
    """What of a cache is saved."""

    config: ESAConfig
    layers: list[ESALayer]
    made_for: str

    def recover(self) -> None:
        """Be in a state that can be saved, or refuse."""
        ...


def save_cache(cache: Saved, path: str | os.PathLike[str]) -> Path:
    """Write what a cache holds to one safetensors file.

    Args:
        cache: The cache.
        path: Where to; an existing file is replaced in one step.

    Raises:
        UserError: If the cache is empty or unusable.
    """
    cache.recover()
    if not all(layer.is_initialized for layer in cache.layers):
        raise UserError("the cache is empty, there is nothing to save")
    tensors = {
        f"layers.{index}.{name}": buffer.rows.contiguous()
        for index, layer in enumerate(cache.layers)
        for name, buffer in _buffers(layer).items()
    }
    config = json.dumps(dataclasses.asdict(cache.config))
    return write_tensors(path, KIND, tensors, {"made_for": cache.made_for, CONFIG: config})


def read_cache(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, object], str]:
    """Read what :func:`save_cache` wrote: tensors by name, fields of the configuration, and what it was made for.

    Raises:
        UserError: If it is no such file.
    """
    tensors, metadata = read_tensors(path, KIND)
    return tensors, read_json(path, metadata, CONFIG, dict), metadata.get("made_for", "")


def fill_cache(cache: Saved, tensors: Mapping[str, Tensor], device: Callable[[int], torch.device]) -> None:
    """Put saved tensors into an empty cache.

    Args:
        cache: The cache.
        tensors: By name.
        device: Where the attention of a layer runs.

    Raises:
        UserError: If a tensor is missing or does not fit.
    """
    for index, layer in enumerate(cache.layers):
        kv = tensors.get(f"layers.{index}.store")
        if kv is None or kv.ndim != 5:
            raise UserError(f"the saved cache has no keys and values of layer {index}")
        first = kv[:, :0, 0].transpose(1, 2).to(device(index))
        layer.lazy_initialization(first, first)
        for name, buffer in _buffers(layer).items():
            rows = tensors.get(f"layers.{index}.{name}")
            if rows is None or rows.dtype != buffer.data.dtype or rows.shape[2:] != buffer.data.shape[2:]:
                raise UserError(f"the saved cache does not fit: {name} of layer {index} is missing or of another kind")
            buffer.extend(rows.shape[1]).copy_(rows)


def _buffers(layer: ESALayer) -> dict[str, GrowingBuffer]:
    """All memory of a layer that is more than derived, by name."""
    found = {"store": layer.store, "queries": layer.queries}
    if layer.index is not None:
        found |= {"index": layer.index.keys, "index_scale": layer.index.scale}
    return {name: buffer for name, buffer in found.items() if buffer is not None}
