"""What weights of a TNT and of a PyramidTNT have in common on their way into a model of another shape."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from timm.models._manipulate import adapt_input_conv
from torch import Tensor

from effkit.checkpoints import check_fit
from effkit.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from tnt_vit.model import TNT
    from tnt_vit.pyramid import PyramidTNT

__all__ = ["load_fitted", "table_grid"]

_log = logging.getLogger(__name__)
_HEAD = ("head.weight", "head.bias")


def table_grid(count: int, grid: tuple[int, int] | None, or_else: str = "") -> tuple[int, int]:
    """Rows and columns of a position table. Grids are compared, not their numbers of sentences: 2x8 is not 4x4.

    Args:
        count: Its sentences, without a class token.
        grid: What is known of it; a square if nothing is.
        or_else: What else than giving the picture's size would help, for the message.

    Raises:
        UserError: If the table is no square and nobody says what, or does not have the grid's size.
    """
    if grid is None:
        side = math.isqrt(max(count, 0))
        if count < 1 or side * side != count:
            raise UserError(
                f"the position table has {count} sentences, which is no square grid, and the file does not say which: "
                f"give the picture size it was trained for, load_checkpoint(..., img_size=(height, width)){or_else}"
            )
        grid = (side, side)
    if grid[0] * grid[1] != count:
        raise UserError(f"the position table has {count} sentences, not {grid[0]} x {grid[1]}")
    return grid


def load_fitted(
    model: TNT | PyramidTNT, state: Mapping[str, Tensor], path: Path, *, stem: str, strict_head: bool
) -> list[str]:
    """Load weights whose tables fit already; the first convolution and the classifier are seen to here.

    Args:
        model: Receives the weights.
        state: Weights by the model's names.
        path: Their file, for messages.
        stem: Name of the first convolution, which is fitted from three channels to the model's as timm does it.
        strict_head: If false, a classifier of another number of classes is left as it is.

    Returns:
        Names that were left untouched (only ever the classifier's).

    Raises:
        ValueError: If names or shapes do not fit; the first ones are named.
    """
    state, own = dict(state), model.state_dict()
    first = state.get(stem)
    if first is not None and first.dim() == 4 and first.shape[1] == 3 != model.in_chans:
        state[stem] = adapt_input_conv(model.in_chans, first)
        _log.info(f"weights {str(path)!r}: first convolution fitted from 3 to {model.in_chans} channels")
    left: list[str] = []
    if not strict_head:
        left = [k for k in _HEAD if k in own and (k not in state or state[k].shape != own[k].shape)]
        state = {k: v for k, v in state.items() if k not in left and not (k.startswith("head.") and k not in own)}
        state.update({k: own[k] for k in left})
    classes = len(state.get("head.weight", ()))
    hints = {"head.": f"build the model with num_classes={classes}, or give strict_head=False to fine-tune"}
    check_fit(state, own, path, hints=hints)
    model.load_state_dict(state)
    return left
