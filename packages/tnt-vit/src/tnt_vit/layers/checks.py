"""Bad input answered once, in one sentence that names the argument, the value and the fix (fact sheet section 10)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from effkit.errors import UserError, choose

__all__ = ["check_architecture", "check_input", "parse_blocks"]

_POSITIVE = ("in_chans", "embed_dim", "inner_dim", "depth", "num_heads", "inner_num_heads", "inner_stride")

_RATES = ("drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate")


def _whole(name: str, value: Any, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise UserError(f"{name} must be a whole number of at least {minimum}, got {value!r}")


def check_architecture(**args: Any) -> None:
    """Check whichever of the arguments of :class:`~tnt_vit.model.TNT` are given.

    Raises:
        ValueError: For the first argument that does not fit, with its value and what would.
    """
    for name in _POSITIVE:
        if name in args:
            _whole(name, args[name], 1)
    if "num_classes" in args:
        _whole("num_classes", args["num_classes"], 0)
    for name in ("patch_size", "img_size"):
        for side in args.get(name, ()):
            _whole(name, side, 1)
    if "img_size" in args:
        for side, patch in zip(args["img_size"], args["patch_size"], strict=True):
            if side % patch:
                near = sorted({max(side // patch, 1) * patch, -(-side // patch) * patch})
                raise UserError(
                    f"img_size={_pair(args['img_size'])} must be a multiple of patch_size={_pair(args['patch_size'])}; "
                    f"near {side}: {' or '.join(map(str, near))}"
                )
    if "inner_stride" in args:
        for patch in args["patch_size"]:
            if patch % args["inner_stride"]:
                fits = [s for s in range(1, patch + 1) if patch % s == 0]
                raise UserError(
                    f"inner_stride={args['inner_stride']} must divide patch_size={_pair(args['patch_size'])}; "
                    f"use one of {fits}"
                )
    for dim, heads in (("embed_dim", "num_heads"), ("inner_dim", "inner_num_heads")):
        if dim in args and args[dim] % args[heads]:
            fits = [h for h in range(1, min(args[dim], 64) + 1) if args[dim] % h == 0]
            raise UserError(f"{heads}={args[heads]} must divide {dim}={args[dim]}; use one of {fits}")
    if "mlp_ratio" in args and not (args["mlp_ratio"] > 0 and math.isfinite(args["mlp_ratio"])):
        raise UserError(f"mlp_ratio must be a positive number, got {args['mlp_ratio']!r}")
    for name in _RATES:
        if name in args and not 0 <= args[name] < 1:
            raise UserError(f"{name} must be in [0, 1), got {args[name]!r}")
    if "se_ratio" in args and (args["se_ratio"] < 0 or 0 < args["se_ratio"] * args["embed_dim"] < 1):
        raise UserError(
            f"se_ratio must be 0 or give at least one hidden channel of {args['embed_dim']}, got {args['se_ratio']!r}"
        )
    if "global_pool" in args:
        choose("global_pool", args["global_pool"], ["", "token", "avg"])
    if "positions" in args:
        choose("positions", args["positions"], ["both", "sentence", "word", "none"])
    if "backend" in args:
        choose("backend", args["backend"], ["auto", "reference", "torch", "fused"])


def parse_blocks(tnt_blocks: str | Iterable[int], depth: int) -> tuple[int, ...]:
    """1-based numbers of the blocks that have an inner part, ascending.

    Args:
        tnt_blocks: ``"all"`` or numbers in ``1..depth``; an empty list makes a plain ViT.
        depth: Blocks of the network.

    Raises:
        ValueError: If a number is out of range or repeated.
    """
    if isinstance(tnt_blocks, str):
        if tnt_blocks != "all":
            raise UserError(f'tnt_blocks must be "all" or a list of block numbers in 1..{depth}, got {tnt_blocks!r}')
        return tuple(range(1, depth + 1))
    blocks = list(tnt_blocks)
    for block in blocks:
        if isinstance(block, bool) or not isinstance(block, int) or not 1 <= block <= depth:
            raise UserError(f"tnt_blocks={blocks}: {block!r} is not a block number in 1..{depth}")
    repeated = sorted({b for b in blocks if blocks.count(b) > 1})
    if repeated:
        raise UserError(f"tnt_blocks={blocks}: {repeated[0]} is repeated; name every block once")
    return tuple(sorted(blocks))


def check_input(x: Tensor, in_chans: int, img_size: tuple[int, int], patch: tuple[int, int], *, dynamic: bool) -> None:
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
    if dynamic:  # a size that torch.export leaves open is a multiple because the caller has said so
        if any(side < 1 or side % step for side, step in zip(size, patch, strict=True)):
            check_architecture(img_size=tuple(map(int, size)), patch_size=patch)
    elif size != tuple(img_size):
        raise UserError(
            f"input is {_pair(size)}, the model was built for img_size={_pair(img_size)}; "
            f"resize the picture, call set_input_size({size}), or build with dynamic_img_size=True"
        )


def _pair(size: Sequence[int]) -> str:
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"
