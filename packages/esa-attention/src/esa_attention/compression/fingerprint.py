"""By what a calibration knows the model it was made for: geometry, rotary parameters, a sample of the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from esa_attention.compression.geometry import geometry

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["check_fingerprint", "fingerprint"]

GEOMETRY = ("model_type", "num_layers", "num_heads", "num_kv_heads", "head_dim", "rotary_dim", "rope")
# What models call the projections that queries and keys come from, separate or fused.
_PROJECTIONS = {"q_proj", "k_proj", "qkv_proj", "query_key_value"}
_SAMPLES = 4096
# Half precision holds smaller numbers only coarsely, so they say nothing about the checkpoint.
_LEAST = 2.0**-14


def fingerprint(model: PreTrainedModel | nn.Module) -> dict[str, Any]:
    """Describe a model such that the same checkpoint has the same description in whatever type it is loaded.

    Weights are compared after rounding to bfloat16: a bfloat16 checkpoint loaded as float32, or a float32 checkpoint
    loaded as bfloat16, agrees with itself. Quantised or absent (meta device, offloaded) weights cannot be compared and
    leave ``weights`` empty.

    Args:
        model: A transformers causal language model, or its decoder.

    Returns:
        Plain values: ``model_type``, ``num_layers``, ``num_heads``, ``num_kv_heads``, ``head_dim``, ``rotary_dim``,
        ``rope`` (the config's rotary parameters), ``weights`` (a SHA-256 in hexadecimal, or ``None``).

    Raises:
        UserError: If the model is not supported by ESA.
    """
    shape = geometry(model)
    config: Any = shape.base.config
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    values = {name: getattr(shape, name) for name in GEOMETRY if name != "rope"}
    # Through JSON, so that it equals what comes back from a file.
    values["rope"] = json.loads(json.dumps(dict(rope), default=str))
    values["weights"] = _hash_weights([shape.attentions[0], shape.attentions[-1]])
    return values


def check_fingerprint(found: Mapping[str, Any], model: PreTrainedModel | nn.Module, *, strict: bool = True) -> None:
    """Refuse a calibration of another model.

    Args:
        found: What :func:`fingerprint` said when the calibration was made.
        model: The model it is to be used with.
        strict: Compare the weights too, where both are known.

    Raises:
        UserError: For the first field that differs, with both values.
    """
    ours = fingerprint(model)
    for name in GEOMETRY:
        if name in found and found[name] != ours[name]:
            raise UserError(f"compressors are for another model: {name} must be {ours[name]!r}, got {found[name]!r}")
    theirs = found.get("weights")
    if strict and theirs is not None and ours["weights"] is not None and theirs != ours["weights"]:
        raise UserError(
            f"compressors are for other weights: weights must be {ours['weights'][:12]}, got {str(theirs)[:12]} "
            "(strict=False uses them all the same, e.g. for a fine-tuned model)"
        )


def _hash_weights(attentions: list[nn.Module]) -> str | None:
    digest, seen = hashlib.sha256(), 0
    for module in attentions:
        named = dict(module.named_parameters())
        projections = {n: p for n, p in named.items() if _PROJECTIONS & set(n.split("."))} or named
        for name, weight in sorted(projections.items()):
            if weight.device.type == "meta" or not weight.is_floating_point():
                return None
            if weight.ndim == 2:
                digest.update(f"{name}{tuple(weight.shape)}".encode())
                digest.update(_sample(weight))
                seen += 1
    return digest.hexdigest() if seen else None  # packed weights are no parameters


def _sample(weight: Tensor) -> bytes:
    """Some 4,096 entries over the whole matrix, as bytes that do not depend on the type."""
    flat = weight.detach().reshape(-1)
    taken = flat[:: max(1, flat.numel() // _SAMPLES)].to("cpu", torch.float32).to(torch.bfloat16)
    taken = torch.where(taken.abs() < _LEAST, torch.zeros_like(taken), taken)
    return taken.view(torch.int16).numpy().astype("<i2").tobytes()
