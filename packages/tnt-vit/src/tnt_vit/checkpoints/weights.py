"""Checkpoints in and out: timm's layout is the public contract, the official one is translated on the way in.

Nothing is unpickled beyond tensors (``weights_only=True``), and a file that does not fit is refused with the reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor

from effkit.checkpoints import Checkpoint, read_checkpoint, write_state
from effkit.data.preprocessing import Preprocessing
from effkit.errors import UserError
from tnt_vit.checkpoints.fitting import load_fitted, table_grid
from tnt_vit.checkpoints.pyramid_weights import is_pyramid, load_pyramid
from tnt_vit.layers import resample_positions
from tnt_vit.layers.checks import check_architecture
from tnt_vit.model import TNT
from tnt_vit.pyramid import PyramidTNT
from tnt_vit.pyramid.checks import STEM_STRIDE

__all__ = [
    "GRID_KEY",
    "Ema",
    "adapt_state",
    "classes_of",
    "is_legacy_state",
    "load_checkpoint",
    "read_state",
    "read_weights",
    "save_checkpoint",
    "stored_grid",
    "to_timm_names",
]

Ema = bool | Literal["auto"]
GRID_KEY = "tnt_vit.grid"
"""Key of the position table's rows and columns in the metadata of a safetensors file, as ``16x12``."""

_NAMES = ("blocks.", "cls_token", "stages.", "outer_pos")  # what names of a TNT or a PyramidTNT begin with
_STEM = "pixel_embed.proj.weight"
_CONVERT = ", or once and for all, tnt-vit convert src=FILE dst=FILE.safetensors img_size=[height,width]"
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


def read_weights(path: str | os.PathLike[str], ema: Ema = "auto") -> Checkpoint:
    """Read a file of weights as it is: see :func:`effkit.checkpoints.read_checkpoint`.

    Names are the file's own, without what DDP, ``torch.compile`` and a training module put before them.

    Args:
        path: The file.
        ema: Averaged weights: ``"auto"`` takes them where the file has some, as timm's loader does, and says so in the
            log; true insists on them, false on the others.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no tensors by name, NaN or infinite values, or not the weights that ``ema`` asks
            for.
    """
    return read_checkpoint(path, ema=ema, expect=lambda name: name.startswith(_NAMES))


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
        pyramid = "; they are a PyramidTNT's" if is_pyramid(found.state) else ""
        raise UserError(
            f"weights {str(found.path)!r} hold no TNT: cls_token and patch_pos are missing among {len(state)} tensors"
            f"{pyramid}"
        )
    return state


def stored_grid(weights: Checkpoint, patch_size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of the position table, as far as the file says so.

    Args:
        weights: The file that was read.
        patch_size: Pixels of a sentence, for files of ours that keep the picture's size only.

    Returns:
        The grid; ``None`` for files of others, whose grid is square unless told otherwise.
    """
    found = re.fullmatch(r"(\d+)x(\d+)", weights.metadata.get(GRID_KEY, ""))
    if found is not None:
        return int(found[1]), int(found[2])
    known = Preprocessing.from_metadata(weights.metadata, str(weights.path))
    pyramid = is_pyramid(weights.state)
    table = weights.state["outer_pos"] if pyramid else to_timm_names(weights.state).get("patch_pos")
    if known is None or table is None or table.dim() != 3:
        return None
    grid = (known.size[0] // patch_size[0], known.size[1] // patch_size[1])
    return grid if grid[0] * grid[1] == table.shape[1] - (0 if pyramid else 1) else None  # no class token


def adapt_state(state: Mapping[str, Tensor], model: TNT, grid: tuple[int, int] | None = None) -> dict[str, Tensor]:
    """Fit weights in any known layout to a model: names, position table, legacy flag.

    Args:
        state: Weights by official or timm names.
        model: The model they are for.
        grid: Rows and columns of the position table; a square if not given, as timm takes it.

    Returns:
        A dictionary for ``model.load_state_dict``.

    Raises:
        ValueError: If the legacy flags disagree, the word grids differ, or the table is no square and nobody says what.
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
    if table is not None and table.dim() == 3 and table.shape[2] == model.embed_dim:
        stored = table_grid(table.shape[1] - 1, grid, _CONVERT)
        out["patch_pos"] = resample_positions(table, stored, model.grid_size)
    return out


def classes_of(weights: Checkpoint) -> int | None:
    """Classes that the classifier in a file tells apart; ``None`` if there is none."""
    head = weights.state.get("head.weight")
    return None if head is None else len(head)


def load_checkpoint(
    model: TNT | PyramidTNT,
    path: str | os.PathLike[str] | Checkpoint,
    *,
    strict_head: bool = True,
    ema: Ema = "auto",
    img_size: int | tuple[int, int] | None = None,
) -> list[str]:
    """Load a checkpoint into a model.

    The position table is resampled (bicubic) from its grid to the model's. Weights for three channels are fitted to
    another number of them as timm does it: summed for one, else repeated and scaled.

    Args:
        model: Receives the weights.
        path: See :func:`read_state`; or such a file that was read already.
        strict_head: If false, a classifier of another number of classes is left as it is (fine-tuning).
        ema: See :func:`read_weights`.
        img_size: Picture size that the weights were trained for, where the grid is no square and the file does not say.

    Returns:
        Names that were left untouched (only ever the classifier's).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If names or shapes do not fit; the first ones are named.
    """
    found = path if isinstance(path, Checkpoint) else read_weights(path, ema)
    pixels = (STEM_STRIDE, STEM_STRIDE) if isinstance(model, PyramidTNT) else model.patch_size  # of a sentence
    if img_size is None:
        grid = stored_grid(found, pixels)
    else:
        size = (img_size, img_size) if isinstance(img_size, int) else img_size
        check_architecture(img_size=size, patch_size=pixels)
        grid = (size[0] // pixels[0], size[1] // pixels[1])
    if isinstance(model, PyramidTNT):
        return load_pyramid(model, found, strict_head=strict_head, grid=grid)
    state = adapt_state(read_state(found), model, grid)
    return load_fitted(model, state, found.path, stem=_STEM, strict_head=strict_head)


def save_checkpoint(
    model: TNT | PyramidTNT, path: str | os.PathLike[str], *, preprocessing: Preprocessing | None = None
) -> Path:
    """Save weights in timm's names, of a PyramidTNT in the official ones; whole or not at all.

    Args:
        model: The model.
        path: ``.safetensors``, or anything else for a torch file.
        preprocessing: What the model expects of pictures, kept in the metadata of a ``.safetensors`` file, beside the
            grid of the position table.

    Returns:
        The path.
    """
    grid = {GRID_KEY: "{}x{}".format(*model.grid_size)}
    return write_state(path, model.state_dict(), {**grid, **(preprocessing.to_metadata() if preprocessing else {})})
