"""The maps of all layers (:class:`QKCompressor`), and the file that holds them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from esa_attention.compression.fingerprint import check_fingerprint, fingerprint
from esa_attention.compression.geometry import geometry
from esa_attention.compression.qk_compressor import WEIGHTS, QKCompressor
from esa_attention.compression.tensor_files import read_json, read_number, read_tensors, write_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Compressors", "QKCompressor", "fingerprint", "load_compressors", "save_compressors"]

KIND = "esa-attention compressors"


@dataclass(frozen=True, eq=False)
class Compressors(Sequence[QKCompressor]):
    """The maps of all layers, and where they come from.

    Args:
        layers: One per layer, in order.
        method: How they were made.
        far_position: The position that queries are rotated to before they are compressed (w); ``None`` if unknown.
        fingerprint: What :func:`fingerprint` says of the model; empty if unknown.
        num_tokens: Tokens of the calibration text.
        text: A name for the calibration text.
        texts: ``name``, ``tokens`` and ``sha256`` of every text that was read; empty if unknown.

    Raises:
        UserError: If there is no layer, or layers differ in their heads.
    """

    layers: Sequence[QKCompressor]
    method: str = "given"
    far_position: int | None = None
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    num_tokens: int = 0
    text: str = ""
    texts: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise UserError("layers must hold a compressor for every layer, got none")
        first = self.layers[0]
        for index, layer in enumerate(self.layers):
            if (layer.num_kv_heads, layer.head_dim) != (first.num_kv_heads, first.head_dim):
                raise UserError(
                    f"layers must have the same heads, got {layer.num_kv_heads} x {layer.head_dim} in layer {index} "
                    f"and {first.num_kv_heads} x {first.head_dim} in layer 0"
                )

    @overload
    def __getitem__(self, index: int) -> QKCompressor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[QKCompressor]: ...
    def __getitem__(self, index: int | slice) -> QKCompressor | Sequence[QKCompressor]:
        """The compressor of a layer."""
        return self.layers[index]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[QKCompressor]:
        return iter(self.layers)

    @property
    def ranks(self) -> list[int]:
        """Compressed dimension of every layer."""
        return [layer.rank for layer in self.layers]

    @property
    def key_dim(self) -> int:
        """Length of a token's keys over all heads (d_G)."""
        return self.layers[0].key_dim

    def num_parameters(self) -> int:
        """Entries of weights and biases of all layers."""
        return sum(layer.num_parameters() for layer in self.layers)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Compressors:
        """A copy on another device or in another type."""
        return replace(self, layers=tuple(layer.to(device, dtype) for layer in self.layers))

    def check_model(self, model: PreTrainedModel | nn.Module, *, strict: bool = True) -> None:
        """Refuse a model that these maps were not made for.

        Args:
            model: The model.
            strict: Compare the weights too, not only the geometry.

        Raises:
            UserError: For the first thing that differs.
        """
        shape = geometry(model)
        first = self.layers[0]
        for name, needed, got in (
            ("number of layers", shape.num_layers, len(self)),
            ("num_kv_heads", shape.num_kv_heads, first.num_kv_heads),
            ("head_dim", shape.head_dim, first.head_dim),
        ):
            if needed != got:
                raise UserError(f"compressors are for another model: {name} must be {needed}, got {got}")
        for index, layer in enumerate(self.layers):
            if not layer.is_folded and layer.query_weight.shape[1] != shape.num_heads * shape.head_dim:  # type: ignore[union-attr]
                raise UserError(
                    f"query_weight of layer {index} must act on {shape.key_dim} or "
                    f"{shape.num_heads * shape.head_dim} dimensions, got {layer.query_weight.shape[1]}"  # type: ignore[union-attr]
                )
        check_fingerprint(self.fingerprint, model, strict=strict)


def save_compressors(compressors: Compressors, path: str | os.PathLike[str]) -> Path:
    """Write the maps of all layers to one safetensors file.

    Args:
        compressors: What to write.
        path: Where to; missing folders are made, an existing file is replaced in one step.

    Returns:
        The path.

    Raises:
        UserError: If a weight is NaN or infinite.
    """
    tensors: dict[str, Tensor] = {}
    for index, layer in enumerate(compressors):
        named = layer.tensors() | ({} if layer.spectrum is None else {"spectrum": layer.spectrum})
        tensors |= {f"layers.{index}.{name}": value for name, value in named.items()}
    _check_finite(path, tensors)
    first = compressors[0]
    metadata = {
        "num_layers": str(len(compressors)),
        "num_kv_heads": str(first.num_kv_heads),
        "head_dim": str(first.head_dim),
        "ranks": json.dumps(compressors.ranks),
        "method": compressors.method,
        "far_position": "" if compressors.far_position is None else str(compressors.far_position),
        "fingerprint": json.dumps(dict(compressors.fingerprint), sort_keys=True),
        "num_tokens": str(compressors.num_tokens),
        "text": compressors.text,
        "texts": json.dumps([dict(text) for text in compressors.texts]),
    }
    return write_tensors(path, KIND, tensors, metadata)


def load_compressors(
    path: str | os.PathLike[str], model: PreTrainedModel | nn.Module | None = None, *, strict: bool = True
) -> Compressors:
    """Read what :func:`save_compressors` wrote; nothing in the file is executed.

    Args:
        path: The file.
        model: The model it will be used with; not compared if not given.
        strict: Refuse a model with other weights. ``False`` still refuses another geometry.

    Returns:
        Compressors on the CPU, in the types they were saved in.

    Raises:
        UserError: If the file is missing, cut short, not ours, inconsistent, not finite, or made for another model.
    """
    tensors, metadata = read_tensors(path, KIND)
    _check_finite(path, tensors)
    num_layers = read_number(path, metadata, "num_layers", 1)
    heads = read_number(path, metadata, "num_kv_heads", 1), read_number(path, metadata, "head_dim", 1)
    ranks = read_json(path, metadata, "ranks", list)
    if len(ranks) != num_layers:
        raise UserError(f"{path}: ranks must hold {num_layers} numbers, one a layer, got {len(ranks)}")
    layers = []
    for index in range(num_layers):
        prefix = f"layers.{index}."
        own = {n.removeprefix(prefix): tensors.pop(n) for n in list(tensors) if n.startswith(prefix)}
        unknown = sorted(set(own) - {*WEIGHTS, "spectrum"})
        if unknown:
            raise UserError(f"{path}: tensors of a layer must be {', '.join(WEIGHTS)} or spectrum, got {unknown[0]!r}")
        try:
            layer = QKCompressor(heads[0], heads[1], **own)  # type: ignore[arg-type]
        except UserError as error:
            raise UserError(f"{path}: layer {index}: {error}") from error
        if layer.rank != ranks[index]:
            raise UserError(f"{path}: rank of layer {index} must be {ranks[index]!r} as listed, got {layer.rank}")
        layers.append(layer)
    if tensors:
        raise UserError(f"{path}: tensors must belong to layers 0..{num_layers - 1}, got {min(tensors)!r}")
    compressors = Compressors(
        layers,
        method=metadata.get("method", ""),
        far_position=read_number(path, metadata, "far_position") if metadata.get("far_position") else None,
        fingerprint=read_json(path, metadata, "fingerprint", dict),
        num_tokens=read_number(path, metadata, "num_tokens"),
        text=metadata.get("text", ""),
        texts=_texts(path, metadata),
    )
    if model is not None:
        compressors.check_model(model, strict=strict)
    return compressors


def _texts(path: str | os.PathLike[str], metadata: dict[str, str]) -> list[Mapping[str, Any]]:
    """What was read; older files do not say."""
    found = read_json(path, metadata, "texts", list) if "texts" in metadata else []
    for text in found:
        if not isinstance(text, dict) or set(text) != {"name", "tokens", "sha256"}:
            raise UserError(f"{path}: texts must hold name, tokens and sha256 of each, got {text!r}")
    return found


def _check_finite(path: object, tensors: Mapping[str, Tensor]) -> None:
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise UserError(f"{path}: {name} must be finite, got NaN or infinity")
