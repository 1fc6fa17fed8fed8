"""Checkpoints in and out: timm's layout is the public contract, the official one is translated on the way in.

Nothing is unpickled beyond tensors (``weights_only=True``), and a file that does not fit is refused with the reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from timm.layers import resample_abs_pos_embed
from torch import Tensor

from effkit.checkpoints import Checkpoint, check_fit, read_checkpoint, write_state
from effkit.data.preprocessing import Preprocessing
from effkit.errors import UserError
from tnt_vit.model import TNT

__all__ = [
    "adapt_state",
    "classes_of",
    "is_legacy_state",
    "load_checkpoint",
    "read_state",
    "read_weights",
    "save_checkpoint",
    "to_timm_names",
]

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


def read_weights(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a file of weights as it is: see :func:`effkit.checkpoints.read_checkpoint`.

    Names are the file's own, without what DDP, ``torch.compile`` and a training module put before them. Where a file
    has averaged weights too, it is those.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no tensors by name, or NaN or infinite values.
    """
    return read_checkpoint(path, expect=lambda name: name.startswith(("blocks.", "cls_token")))


def read_state(weights: str | os.PathLike[str] | Checkpoint) -> dict[str, Tensor]:
    """Read weights from a file, in timm's names.

    Args:
        weights: ``.safetensors``, or a torch file holding a plain dictionary or one under ``state_dict_ema``,
            ``state_dict``, ``model`` and the like; Lightning checkpoints of this package work too. Or such a file that
            was read already.

    Returns:
        Weights by timm's names.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no weights of a TNT, or NaN or infinite values.
    """
    found = weights if isinstance(weights, Checkpoint) else read_weights(weights)
    state = to_timm_names(found.state)
    if "cls_token" not in state or "patch_pos" not in state:
        raise UserError(
            f"weights {str(found.path)!r} hold no TNT: cls_token and patch_pos are missing among {len(state)} tensors"
        )
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


def classes_of(weights: Checkpoint) -> int | None:
    """Classes that the classifier in a file tells apart; ``None`` if there is none."""
    head = weights.state.get("head.weight")
    return None if head is None else len(head)


def load_checkpoint(model: TNT, path: str | os.PathLike[str] | Checkpoint, *, strict_head: bool = True) -> list[str]:
    """Load a checkpoint into a model.

    Args:
        model: Receives the weights; position tables are resampled (bicubic) to its picture size.
        path: See :func:`read_state`; or such a file that was read already.
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
    file = path.path if isinstance(path, Checkpoint) else path
    classes = len(state.get("head.weight", ()))
    hints = {"head.": f"build the model with num_classes={classes}, or give strict_head=False to fine-tune"}
    check_fit(state, own, file, hints=hints)
    model.load_state_dict(state)
    return left


def save_checkpoint(model: TNT, path: str | os.PathLike[str], *, preprocessing: Preprocessing | None = None) -> Path:
    """Save weights in timm's names, so that timm can load them; whole or not at all.

    Args:
        model: The model.
        path: ``.safetensors``, or anything else for a torch file.
        preprocessing: What the model expects of pictures, kept in the metadata of a ``.safetensors`` file.

    Returns:
        The path.
    """
    return write_state(path, model.state_dict(), preprocessing.to_metadata() if preprocessing else None)
