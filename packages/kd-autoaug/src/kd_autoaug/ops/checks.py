"""What the operators take: uint8 batches of 1 or 3 channels, and colours of as many values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effkit.errors import UserError

__all__ = ["check_images", "colour"]


def check_images(images: Tensor) -> None:
    """Check that a batch is what the operators are defined on.

    Raises:
        UserError: If it is not uint8, not four-dimensional, or has neither 1 nor 3 channels.
    """
    if not isinstance(images, Tensor):
        raise UserError(f"images must be a torch tensor of uint8 (B, C, H, W), got {type(images).__name__}")
    if images.dtype != torch.uint8:
        raise UserError(
            f"images must be uint8, got {images.dtype}: the operators are defined on 0..255; quantise first"
        )
    shape = tuple(images.shape)
    if images.ndim != 4:
        raise UserError(f"images must be (B, C, H, W), got shape {shape}")
    if images.shape[1] not in (1, 3):
        hint = "; this looks like (B, H, W, C): permute(0, 3, 1, 2) first" if images.shape[3] in (1, 3) else ""
        hint = "; drop the alpha channel first" if images.shape[1] == 4 else hint
        raise UserError(f"images must have 1 or 3 channels, got {images.shape[1]} in shape {shape}{hint}")
    if len(images) and min(images.shape[2:]) < 1:
        raise UserError(f"images must have at least one pixel, got shape {shape}")


def colour(field: str, value: int | Sequence[int], channels: int) -> tuple[int, ...]:
    """One value per channel.

    Args:
        field: Name of the argument, for the message.
        value: A number, or one per channel; three numbers are averaged for a grey picture.
        channels: 1 or 3.

    Raises:
        UserError: If the number of values does not fit or a value is outside 0..255.
    """
    values = [value] * channels if isinstance(value, int | float) else list(value)
    if channels == 1 and len(values) == 3:
        values = [round(sum(values) / 3)]
    if len(values) != channels:
        raise UserError(f"{field}={value!r} has {len(values)} values, but the pictures have {channels} channels")
    for one in values:
        if int(one) != one or not 0 <= one <= 255:
            raise UserError(f"{field}={value!r} must hold whole numbers in 0..255")
    return tuple(int(v) for v in values)
