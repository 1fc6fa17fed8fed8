"""Operators that look every value up in a table: the tables of a batch, ``(B, C, 256)``.

Eight operators change a value without looking at its neighbours. What they need to know about the picture (its range,
its histogram, its mean grey) goes into the table; the pixels are then read once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kd_autoaug.ops.operators import Op

PLANE = 64 * 64  # pixels from which a plane is worth a call of its own on a CPU

__all__ = ["PLANE", "STATISTICS", "blend", "grey", "lookup_tables", "to_bytes"]


def grey(images: Tensor) -> Tensor:
    """Luma as Pillow's mode L: (19595 R + 38470 G + 7471 B + 32768) >> 16; a grey picture is its own.

    Args:
        images: uint8 ``(B, C, H, W)``.

    Returns:
        Int32 ``(B, H, W)``.
    """
    if images.shape[1] == 1:
        return images[:, 0].int()
    red, green, blue = images.int().unbind(1)
    return (red * 19595).add_(green.mul_(38470)).add_(blue.mul_(7471)).add_(32768).bitwise_right_shift_(16)


def to_bytes(values: Tensor) -> Tensor:
    """Cut to 0..255 and truncate; overwrites ``values``.

    Args:
        values: Float.

    Returns:
        uint8.
    """
    return values.clamp_(0, 255).short().to(torch.uint8)  # by way of int16: three times as fast as at once


def blend(base: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """Pillow's blend: base + factor * (images - base), in float32 with two roundings, cut to 0..255, truncated.

    Args:
        base: Float32, broadcastable to ``images``.
        images: Float32; overwritten.
        factor: Float32, broadcastable.

    Returns:
        uint8.
    """
    return to_bytes(images.sub_(base).mul_(factor).add_(base))


def _values(like: Tensor) -> Tensor:
    return torch.arange(256, dtype=torch.int64, device=like.device)


# What a table needs to know of the picture: small numbers per picture, found by reading its pixels once.


def _mean_grey(images: Tensor) -> Tensor:
    """Float64 ``(B, 1)``: the mean, rounded half up."""
    height, width = images.shape[-2:]
    total = grey(images).sum((1, 2), dtype=torch.int64).double()[:, None]
    return torch.floor(total / torch.full_like(total, height * width) + 0.5)


def _range(images: Tensor) -> Tensor:
    """Int64 ``(B, C, 2)``: smallest and largest value."""
    flat = images.flatten(2)  # two passes: aminmax is not vectorised
    return torch.stack([flat.amin(2), flat.amax(2)], 2).long()


def _histogram(images: Tensor) -> Tensor:
    """Counts ``(B, C, 256)`` int64."""
    batch, channels, height, width = images.shape
    if images.device.type == "cpu" and height * width >= PLANE:
        planes = images.reshape(batch * channels, -1)
        return torch.stack([torch.bincount(plane, minlength=256) for plane in planes]).view(batch, channels, 256)
    rows = torch.arange(batch * channels, dtype=torch.int32, device=images.device)[:, None] * 256
    keys = images.reshape(batch * channels, -1) + rows
    return torch.bincount(keys.flatten(), minlength=batch * channels * 256).view(batch, channels, 256)


STATISTICS: dict[Op, Callable[[Tensor], Tensor]] = {
    Op.CONTRAST: _mean_grey,
    Op.AUTOCONTRAST: _range,
    Op.EQUALIZE: _histogram,
}
"""What the tables of these operators need to know of the pictures; those of others follow from arguments alone."""


# Tables from arguments, float64 ``(B,)``, and statistics; one for all channels has the shape ``(B, 1, 256)``.


def _identity(arg: Tensor, _: Tensor | None) -> Tensor:
    return _values(arg).to(torch.uint8)


def _posterize(arg: Tensor, _: Tensor | None) -> Tensor:
    bits = arg.trunc().clamp(0, 8).long()
    mask = 256 - (256 >> bits)  # the upper `bits` of eight
    return (_values(arg) & mask[:, None]).to(torch.uint8)[:, None]


def _solarize(arg: Tensor, _: Tensor | None) -> Tensor:
    values = _values(arg)
    return (values ^ (values >= arg[:, None]).long().mul_(255)).to(torch.uint8)[:, None]


def _solarize_add(arg: Tensor, _: Tensor | None) -> Tensor:
    values = _values(arg)
    return (values + arg.trunc().long()[:, None] * (values < 128)).clamp_(0, 255).to(torch.uint8)[:, None]


def _invert(arg: Tensor, _: Tensor | None) -> Tensor:
    return (255 - _values(arg)).to(torch.uint8)


def _brightness(arg: Tensor, _: Tensor | None) -> Tensor:
    return to_bytes(_values(arg).float() * arg.float()[:, None])[:, None]


def _contrast(arg: Tensor, mean: Tensor | None) -> Tensor:
    assert mean is not None
    return blend(mean.float(), _values(arg).float().repeat(len(arg), 1), arg.float()[:, None])[:, None]


def _autocontrast(arg: Tensor, extremes: Tensor | None) -> Tensor:
    assert extremes is not None
    low, high = extremes[..., :1], extremes[..., 1:]
    spread = (high - low).double()
    flat = spread <= 0
    # True division, of a tensor by a tensor: the reciprocal and a product would be one off for some values.
    scale = torch.where(flat, 1.0, torch.full_like(spread, 255.0) / spread.clamp(min=1.0))
    offset = torch.where(flat, 0.0, -low.double() * scale)
    return to_bytes(_values(arg).double() * scale + offset)


def _equalize(arg: Tensor, counts: Tensor | None) -> Tensor:
    assert counts is not None
    until = counts.cumsum(-1)
    pixels = until[..., -1:]
    last = (until < pixels).sum(-1, keepdim=True)  # the last bin that is not empty
    step = (pixels - counts.gather(-1, last)) // 255
    # Whole numbers below 2^53: the quotient of doubles is never rounded up to the next one, and far faster than theirs.
    divisor = step.clamp(min=1).double()
    spread = ((step // 2 + (until - counts)).double() / divisor).floor_().clamp_(max=255).short().to(torch.uint8)
    flat = step[..., 0] == 0
    spread[flat] = _values(arg).to(torch.uint8)
    return spread


_TABLES: dict[Op, Callable[[Tensor, Tensor | None], Tensor]] = {
    Op.BRIGHTNESS: _brightness,
    Op.CONTRAST: _contrast,
    Op.POSTERIZE: _posterize,
    Op.SOLARIZE: _solarize,
    Op.SOLARIZE_ADD: _solarize_add,
    Op.AUTOCONTRAST: _autocontrast,
    Op.EQUALIZE: _equalize,
    Op.INVERT: _invert,
}


def lookup_tables(pictures: Tensor | Sequence[Tensor], op: Tensor, arg: Tensor) -> Tensor:
    """The table of every picture and channel.

    Args:
        pictures: uint8 ``(B, C, H, W)``, or B of ``(1, C, H, W)``.
        op: Operator numbers ``(B,)``, best sorted: each run of equal ones is one call. What is not looked up gets the
            identity.
        arg: Arguments, float64 ``(B,)``.

    Returns:
        uint8 ``(B, C, 256)``.
    """
    tables = torch.empty(len(op), pictures[0].shape[-3], 256, dtype=torch.uint8, device=op.device)
    present, counts = torch.unique_consecutive(op, return_counts=True)
    begin = 0
    for number, count in zip(present.tolist(), counts.tolist(), strict=True):
        part = slice(begin, begin + count)
        measure, some = STATISTICS.get(Op(number)), pictures[part]
        found = None
        if measure is not None:
            found = measure(some) if isinstance(some, Tensor) else torch.cat([measure(one) for one in some])
        tables[part] = _TABLES.get(Op(number), _identity)(arg[part], found)
        begin += count
    return tables
