"""Checkpoints in and out: timm's layout is the public contract, the official one is translated on the way in.

Nothing is unpickled beyond tensors (``weights_only=True``), and a file that does not fit is refused with the reason.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from effkit.errors import UserError
from tnt_vit.model import TNT

__all__ = ["adapt_state", "is_legacy_state", "load_checkpoint", "read_state", "save_checkpoint", "to_timm_names"]

# Official name -> timm name, tried in this order; whole words between dots.
_OFFICIAL = {
    "outer_pos": "patch_pos",
    "inner_pos": "pixel_pos",
    "patch_embed": "pixel_embed",
    "proj_norm1": "norm1_proj",
    "proj_norm2": "norm2_proj",
    "inner_norm1": "norm_in",
    "inner_attn": "attn_in",
    "inner_norm2": "norm_mlp_in",
    "inner_mlp": "mlp_in",
    "outer_norm1": "norm_out",
    "outer_attn": "attn_out",
    "outer_norm2": "norm_mlp",
    "outer_mlp": "mlp",
}


def to_timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the official layout to timm's; timm's own passes unchanged.

    Drops the dead table ``outer_tokens`` and turns ``inner_pos`` ``(1, m, c)`` into ``pixel_pos`` ``(1, c, rows,
    columns)``.

    Args:
        state: Weights by name, with or without a ``module.`` prefix.

    Returns:
        Weights by timm's names.
    """
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        key = key.removeprefix("module.").removeprefix("_orig_mod.")
        if key == "outer_tokens":
            continue
        name = ".".join(_OFFICIAL.get(part, part) for part in key.split("."))
        if key == "inner_pos" and value.dim() == 3:  # only square sentences exist in this layout
            side = round(value.shape[1] ** 0.5)
            if side * side != value.shape[1]:
                raise UserError(f"inner_pos has {value.shape[1]} words, which is not a square grid")
            value = value.transpose(1, 2).reshape(1, -1, side, side)
        out[name] = value
    return out


def is_legacy_state(state: Mapping[str, Tensor]) -> bool | None:
    """Whether weights in timm's names are of the legacy variant; ``None`` if no block has an inner part to tell by."""
    for key, value in state.items():
        if re.fullmatch(r"blocks\.\d+\.norm1_proj\.weight", key):
            width = state[key.replace("norm1_proj", "norm_in")].shape[0]
            return value.shape[0] == width and state[key.replace("norm1_proj", "proj")].shape[1] != width
    return None


def read_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read weights from a file, in timm's names.

    Args:
        path: ``.safetensors``, or a torch file holding a plain dictionary or one under ``state_dict_ema``,
            ``state_dict`` or ``model``. Lightning checkpoints of this package work too (their ``model.`` prefix is
            removed).

    Returns:
        Weights by timm's names.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no weights of a TNT, or NaN or infinite values.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"checkpoint {str(file)!r} does not exist")
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        content: Any = load_file(file)
    else:
        try:
            # timm's training checkpoints carry their arguments along, a plain bag of values.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"checkpoint {str(file)!r} is not a file of plain tensors: {reason}") from error
    if isinstance(content, dict):
        for key in ("state_dict_ema", "state_dict", "model"):
            if isinstance(content.get(key), dict):
                content = content[key]
                break
    if not isinstance(content, dict):
        raise UserError(f"checkpoint {str(file)!r} holds a {type(content).__name__}, not a dictionary of tensors")
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    if tensors and all(k.startswith("model.") or not k.startswith(("blocks.", "cls_token")) for k in tensors):
        tensors = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")} or tensors
    state = to_timm_names(tensors)
    if "cls_token" not in state or "patch_pos" not in state:
        raise UserError(
            f"checkpoint {str(file)!r} holds no TNT: cls_token and patch_pos are missing among {len(state)} tensors"
        )
    for key, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"checkpoint {str(file)!r}: {key} holds NaN or infinite values")
    return state


def adapt_state(state: Mapping[str, Tensor], model: TNT) -> dict[str, Tensor]:
    """Fit weights in any known layout to a model: names, position table, legacy flag.

    Args:
        state: Weights by official or timm names.
        model: The model they are for.

    Returns:
        A dictionary for ``model.load_state_dict``.

    Raises:
        ValueError: If the legacy flags disagree or the word grids differ.
    """
    out = to_timm_names(state)
    legacy = is_legacy_state(out)
    if legacy is not None and legacy != model.legacy:
        raise UserError(
            f"the checkpoint is of the {'legacy' if legacy else 'official'} variant, the model has "
            f"legacy={model.legacy}; "
            f"build it with legacy={legacy}"
        )
    words = out.get("pixel_pos")
    if words is not None and words.shape != model.pixel_pos.shape:
        raise UserError(
            f"the checkpoint has words {tuple(words.shape[1:])} (channels, rows, columns), the model "
            f"{tuple(model.pixel_pos.shape[1:])}; "
            "patch_size, inner_stride and inner_dim must be those of the checkpoint"
        )
    table = out.get("patch_pos")
    if table is not None and table.shape[1] != model.patch_pos.shape[1] and table.shape[2] == model.embed_dim:
        # timm assumes that the table came from a square grid; so do we, the file does not say.
        out["patch_pos"] = resample_abs_pos_embed(table, new_size=list(model.grid_size), num_prefix_tokens=1)
    return out


def load_checkpoint(model: TNT, path: str | os.PathLike[str], *, strict_head: bool = True) -> list[str]:
    """Load a checkpoint into a model.

    Args:
        model: Receives the weights; position tables are resampled (bicubic) to its picture size.
        path: See :func:`read_state`.
        strict_head: If false, a classifier of another number of classes is left as it is (fine-tuning).

    Returns:
        Names that were left untouched (only ever the classifier's).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If names or shapes do not fit; the first ones are named.
    """
    state = adapt_state(read_state(path), model)
    own = model.state_dict()
    left: list[str] = []
    if not strict_head:
        left = [
            k for k in ("head.weight", "head.bias") if k in own and (k not in state or state[k].shape != own[k].shape)
        ]
        state = {k: v for k, v in state.items() if k not in left and not (k.startswith("head.") and k not in own)}
        state.update({k: own[k] for k in left})
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or extra:
        parts = [
            f"{len(names)} {what} ({', '.join(names[:3])})"
            for what, names in (("missing", missing), ("unknown", extra))
            if names
        ]
        raise UserError(f"checkpoint {str(path)!r} does not fit the model: {'; '.join(parts)}")
    for key, value in state.items():
        if value.shape != own[key].shape:
            hint = "; give num_classes, or strict_head=False to fine-tune" if key.startswith("head.") else ""
            raise UserError(
                f"checkpoint {str(path)!r}: {key} is {tuple(value.shape)}, the model needs "
                f"{tuple(own[key].shape)}{hint}"
            )
    model.load_state_dict(state)
    return left


def save_checkpoint(model: TNT, path: str | os.PathLike[str]) -> Path:
    """Save weights in timm's names, so that timm can load them; written to a temporary name first.

    Args:
        model: The model.
        path: ``.safetensors``, or anything else for a torch file.

    Returns:
        The path.
    """
    file = Path(path)
    # Clones: qk and v are views of one tensor, which safetensors refuses to store.
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    os.close(handle)
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(state, name, metadata={"format": "pt"})
        else:
            torch.save(state, name)
        os.chmod(name, 0o644)
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return file
