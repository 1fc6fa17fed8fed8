"""By what a cache knows the handle it was made by, also after it was copied, saved and loaded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from esa_attention.compression.fingerprint import fingerprint
from esa_attention.compression.geometry import ModelGeometry
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig

__all__ = ["handle_fingerprint"]

_SAMPLES = 4096


def handle_fingerprint(
    model: nn.Module, shape: ModelGeometry, config: ESAConfig, compressors: Sequence[QKCompressor], own: bytes
) -> str:
    """A SHA-256, in hexadecimal, of all that decides what a cache holds.

    Args:
        model: The model.
        shape: Its geometry.
        config: Sizes and options.
        compressors: One a layer.
        own: What no other handle has, for models whose weights cannot be seen.
    """
    decides = dataclasses.asdict(config)
    del decides["cpu_forms"]  # of what a cache holds it decides nothing
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode())
    known = fingerprint(model)
    digest.update(json.dumps(known, sort_keys=True).encode())
    if known["weights"] is None:
        digest.update(_whatever_is_there(shape) or own)
    for layer in compressors:
        digest.update(f"{layer.num_kv_heads} {layer.head_dim}".encode())
        for name, weight in layer.tensors().items():
            digest.update(name.encode() + _sample(weight))
    return digest.hexdigest()


def _whatever_is_there(shape: ModelGeometry) -> bytes:
    """Weights that are no floating numbers, as they are; empty where none can be seen."""
    matrices = [t for m in (shape.attentions[0], shape.attentions[-1]) for t in _tensors(m) if t.ndim == 2]
    return b"".join(_sample(t.int_repr() if t.is_quantized else t) for t in matrices)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Tensors of a module that are here, those in packed weights too."""
    for value in module.state_dict().values():
        for tensor in value if isinstance(value, tuple) else (value,):
            if isinstance(tensor, Tensor) and tensor.device.type != "meta":
                yield tensor


def _sample(tensor: Tensor) -> bytes:
    """Some 4,096 entries over the whole tensor, with its shape and type."""
    flat = tensor.detach().reshape(-1)
    taken = flat[:: max(1, flat.numel() // _SAMPLES)].to("cpu").contiguous()
    return f"{tensor.dtype}{tuple(tensor.shape)}".encode() + taken.view(torch.uint8).numpy().tobytes()
