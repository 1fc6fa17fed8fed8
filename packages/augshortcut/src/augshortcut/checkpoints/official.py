"""The official PyTorch code's checkpoints: its names and one-dimensional weights to ours.

There, a path is ``blocks.i.augs_attn.0`` (attention, first), ``augs_attn2.0`` (second), ``augs.0`` and ``augs2.0``
(MLP); the ``.0`` is missing in the modes with one path. Circulant weights are one vector ``weight_list``; a table of
indices, ``index_matrix``, stands beside each and holds nothing. All other names are timm's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from augshortcut.config import AugmentConfig, preset
from effkit.errors import UserError

__all__ = ["convert_official", "is_official"]

_PATH = re.compile(r"(blocks\.\d+)\.(augs_attn|augs)(2?)(?:\.0)?\.(weight_list|weight|bias|index_matrix)")
_BASE = re.compile(r"(cls_token|pos_embed|patch_embed\..+|norm\..+|head\..+|blocks\.\d+\.(norm1|norm2|attn|mlp)\..+)")


def is_official(state: Mapping[str, Tensor]) -> bool:
    """Whether weights are in the official layout (with paths)."""
    return any(_PATH.fullmatch(name) for name in state)


def _circulant(name: str, vector: Tensor, bias: Tensor) -> Tensor:
    """``(b, b, n)`` of a vector of b d numbers; d is the bias's length."""
    dim = bias.numel()
    blocks, rest = divmod(vector.numel(), dim)
    if rest or blocks < 1 or dim % blocks:
        raise UserError(f"{name} has {vector.numel()} numbers, which are no circulants of a width of {dim}")
    return vector.view(blocks, blocks, dim // blocks)


def convert_official(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], AugmentConfig]:
    """Translate weights of the official code.

    Args:
        state: Weights by its names.

    Returns:
        Weights by ours, and the config to augment timm's ViT with.

    Raises:
        UserError: If a name is not known, a path is incomplete, or paths differ in number or kind.
    """
    out: dict[str, Tensor] = {}
    found: dict[tuple[str, str], dict[int, dict[str, Tensor]]] = {}
    unknown = []
    for name, value in state.items():
        match = _PATH.fullmatch(name)
        if match is None:
            if not _BASE.fullmatch(name):
                unknown.append(name)
            out[name] = value
        elif match[4] != "index_matrix":
            place = found.setdefault((match[1], "aug_attn" if match[2] == "augs_attn" else "aug_mlp"), {})
            place.setdefault(1 if match[3] else 0, {})[match[4]] = value
    if unknown:
        raise UserError(f"{len(unknown)} names are not the official code's: {', '.join(unknown[:3])}")
    if not found:
        raise UserError("the weights hold no paths of the official code (augs_attn, augs)")
    kinds = set()
    for (block, location), paths in found.items():
        weights, biases = [], []
        for number in range(len(paths)):
            parts = paths.get(number, {})
            kind = "weight_list" if "weight_list" in parts else "weight"
            if kind not in parts or "bias" not in parts:
                raise UserError(f"{block}: path {number} of {location} has {sorted(parts)}, needs a weight and a bias")
            weight = parts[kind]
            weights.append(_circulant(block, weight, parts["bias"]) if kind == "weight_list" else weight)
            biases.append(parts["bias"])
            blocks = weights[-1].shape[0] if kind == "weight_list" else 4
            kinds.add((len(paths), "circulant" if kind == "weight_list" else "dense", blocks))
        out[f"{block}.{location}.paths.weight"] = torch.stack(weights)
        out[f"{block}.{location}.paths.bias"] = torch.stack(biases)
    if len(kinds) != 1:
        raise UserError(f"paths differ from block to block: {sorted(kinds)}")
    ((count, projection, blocks),) = kinds
    return out, preset("official", num_paths=count, projection=projection, num_blocks=blocks)
