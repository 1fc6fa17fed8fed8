"""Where the sequences of a padded batch begin."""

from __future__ import annotations

from torch import Tensor

from effkit.errors import UserError

__all__ = ["padding_starts"]


def padding_starts(mask: Tensor, batch: int, length: int) -> list[int]:
    """First real token of every row of a padding mask.

    Args:
        mask: ``(B, S)``, true for real tokens.
        batch: What ``B`` must be.
        length: What ``S`` must be.

    Raises:
        UserError: If the mask has another shape, or zeros after ones.
    """
    if tuple(mask.shape) != (batch, length):
        raise UserError(
            f"attention_mask must have the shape {(batch, length)} (all cached tokens), got {tuple(mask.shape)}"
        )
    real = mask.bool()
    if not bool((real[:, 1:] >= real[:, :-1]).all()):
        raise UserError("attention_mask must have its zeros on the left only; pad with padding_side='left'")
    return (length - real.sum(dim=1)).tolist()
