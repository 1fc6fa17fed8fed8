"""Weights of a PyramidTNT: the official names are the contract; tables are fitted to the model's picture size."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from effkit.checkpoints import Checkpoint
from effkit.errors import UserError
from tnt_vit.checkpoints.fitting import load_fitted, table_grid
from tnt_vit.pyramid import PyramidTNT
from tnt_vit.pyramid.checks import STEM_STRIDE, grids_of
from tnt_vit.pyramid.positions import resample_relative, resample_table
from tnt_vit.pyramid.stage import pooled

__all__ = ["adapt_pyramid", "is_pyramid", "load_pyramid", "pyramid_state"]

_STEM = "patch_embed.common_conv.0.weight"
_COUNTER = "num_batches_tracked"  # of the batch norms; nothing reads it with their usual momentum


def is_pyramid(state: Mapping[str, Tensor]) -> bool:
    """Whether weights by name are those of a PyramidTNT."""
    return "outer_pos" in state and "stages.0.relative_pos" in state


def pyramid_state(weights: Checkpoint) -> dict[str, Tensor]:
    """The weights in a file, by the official names.

    Raises:
        ValueError: If they are of another network; says whether it is a TNT.
    """
    if is_pyramid(weights.state):
        return dict(weights.state)
    tnt = "; they are a TNT's" if any(name.startswith("blocks.") for name in weights.state) else ""
    raise UserError(
        f"weights {str(weights.path)!r} hold no PyramidTNT: outer_pos and stages.0.relative_pos are missing among "
        f"{len(weights.state)} tensors{tnt}"
    )


def adapt_pyramid(
    state: Mapping[str, Tensor], model: PyramidTNT, grid: tuple[int, int] | None = None
) -> dict[str, Tensor]:
    """Fit weights to a model's picture size; everything else stays as it is.

    Args:
        state: Weights by the official names.
        model: The model they are for.
        grid: Rows and columns of the first stage's table; a square if not given.

    Returns:
        A dictionary for ``model.load_state_dict``.

    Raises:
        ValueError: If a table does not have the grid's size.
    """
    out = {k: v for k, v in model.state_dict().items() if k.endswith(_COUNTER)} | dict(state)
    table = out.get("outer_pos")
    if table is None or table.dim() != 3:
        return out
    first = table_grid(table.shape[1], grid)
    size = (first[0] * STEM_STRIDE, first[1] * STEM_STRIDE)
    old, new = grids_of(size, len(model.depths)), model.grids
    out["outer_pos"] = resample_table(table, old[0], new[0])
    for i, ratio in enumerate(model.sr_ratios):
        name = f"stages.{i}.relative_pos"
        bias = out.get(name)
        if bias is None or bias.dim() != 4:
            continue
        grids = (old[i], pooled(old[i], ratio))
        expected = tuple(rows * columns for rows, columns in grids)
        if tuple(bias.shape[2:]) != expected:
            raise UserError(
                f"{name} has {bias.shape[2]} queries and {bias.shape[3]} keys, a picture of {size[0]}x{size[1]} has "
                f"{expected[0]} and {expected[1]} with sr_ratios={list(model.sr_ratios)}"
            )
        out[name] = resample_relative(bias, grids, (new[i], pooled(new[i], ratio)))
    return out


def load_pyramid(
    model: PyramidTNT, weights: Checkpoint, *, strict_head: bool = True, grid: tuple[int, int] | None = None
) -> list[str]:
    """Load a file that was read into a PyramidTNT; see :func:`tnt_vit.load_checkpoint`.

    Args:
        model: Receives the weights.
        weights: The file.
        strict_head: If false, a classifier of another number of classes is left as it is.
        grid: Grid of the first stage's table, if it is known.

    Returns:
        Names that were left untouched (only ever the classifier's).

    Raises:
        ValueError: If names or shapes do not fit; the first ones are named.
    """
    state = adapt_pyramid(pyramid_state(weights), model, grid)
    return load_fitted(model, state, weights.path, stem=_STEM, strict_head=strict_head)
