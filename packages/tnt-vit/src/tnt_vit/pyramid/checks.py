"""Bad arguments and pictures of a PyramidTNT, answered once in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from effkit.errors import UserError, choose
from tnt_vit.layers.checks import check_architecture

__all__ = ["STEM_STRIDE", "check_pyramid", "check_pyramid_input", "grids_of", "side_step"]

STEM_STRIDE = 8  # pixels between sentences of the first stage
_STAGES = ("embed_dims", "inner_dims", "depths", "num_heads", "inner_num_heads", "sr_ratios")


def side_step(sr_ratios: Sequence[int]) -> int:
    """What the sides of a picture must be multiples of, so that every pooling comes out even.

    The pooling of keys floors where it does not, and the last rows and columns of sentences would never be looked at.
    """
    needed = [STEM_STRIDE, *(STEM_STRIDE * 2**i * ratio for i, ratio in enumerate(sr_ratios) if ratio > 1)]
    return math.lcm(*needed)


def grids_of(size: tuple[int, int], stages: int = 4) -> list[tuple[int, int]]:
    """Rows and columns of sentences in every stage, for pictures of a size; odd ones are rounded up between stages."""
    grids = [(size[0] // STEM_STRIDE, size[1] // STEM_STRIDE)]
    for _ in range(stages - 1):
        rows, columns = grids[-1]
        grids.append(((rows + 1) // 2, (columns + 1) // 2))
    return grids


def _check_size(size: tuple[int, int], step: int) -> None:
    for side in size:
        if isinstance(side, bool) or not isinstance(side, int) or side < 1:
            raise UserError(f"img_size must be whole numbers of at least 1, got {side!r}")
        if side % step:
            near = sorted({max(side // step, 1) * step, -(-side // step) * step})
            raise UserError(
                f"img_size={size[0]}x{size[1]} must be a multiple of {step}, the pixels of the widest pooling cell; "
                f"near {side}: {' or '.join(map(str, near))}"
            )


def check_pyramid(*, img_size: tuple[int, int], sr_ratios: Sequence[int], **args: Any) -> None:
    """Check the arguments of :class:`~tnt_vit.pyramid.PyramidTNT`, those that come stage by stage too.

    Raises:
        ValueError: For the first argument that does not fit, with its value and what would.
    """
    stages = {"sr_ratios": sr_ratios, **{name: args.pop(name) for name in _STAGES if name in args}}
    count = len(stages.get("depths", sr_ratios))
    if count < 1:
        raise UserError("depths=[] must name at least one stage")
    for name, values in stages.items():
        if isinstance(values, str | int) or len(values) != count:
            raise UserError(f"{name}={values!r} must have one number a stage, {count} as depths has")
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"{name}={list(values)} must hold whole numbers of at least 1, got {value!r}")
    for dims, heads in (("embed_dims", "num_heads"), ("inner_dims", "inner_num_heads")):
        for i, (dim, head) in enumerate(zip(stages.get(dims, ()), stages.get(heads, ()), strict=True)):
            if dim % head:
                fits = [h for h in range(1, min(dim, 64) + 1) if dim % h == 0]
                raise UserError(f"{heads}[{i}]={head} must divide {dims}[{i}]={dim}; use one of {fits}")
    if "global_pool" in args:
        choose("global_pool", args.pop("global_pool"), ["", "avg"])
    if "embed_dims" in stages:
        args["embed_dim"] = min(stages["embed_dims"])
    args["num_heads"] = 1
    check_architecture(**args)
    _check_size(img_size, side_step(sr_ratios))


def check_pyramid_input(
    x: Tensor, in_chans: int, img_size: tuple[int, int], sr_ratios: Sequence[int], *, dynamic: bool
) -> None:
    """Check a batch of pictures ``(B, in_chans, H, W)``; a batch of 0 is legal.

    Raises:
        ValueError: If the rank, type, channels or size do not fit the model.
    """
    if x.dim() != 4:
        raise UserError(f"input must have 4 axes (batch, channels, height, width), got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise UserError(f"input must be floating point, got {x.dtype}; convert with x.float() / 255 and normalise")
    if x.shape[1] != in_chans:
        raise UserError(
            f"input has {x.shape[1]} channels, the model has in_chans={in_chans}; build it with in_chans={x.shape[1]}"
        )
    size = (x.shape[2], x.shape[3])
    if dynamic:
        _check_size(size, side_step(sr_ratios))
    elif size != tuple(img_size):
        raise UserError(
            f"input is {size[0]}x{size[1]}, the model was built for img_size={img_size[0]}x{img_size[1]}; "
            f"resize the picture, call set_input_size({size}), or build with dynamic_img_size=True"
        )
