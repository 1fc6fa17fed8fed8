"""Operators that need no table: arithmetic on all pixels at once, several times as fast as looking each one up.

The formulas are those of ``tables``, evaluated where they are needed instead of for all 256 values.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kd_autoaug.ops.operators import Op
from kd_autoaug.ops.tables import STATISTICS, blend, to_bytes

__all__ = ["ARITHMETIC"]


def _column(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    return numbers.to(dtype).view(-1, 1, 1, 1)


def _invert(images: Tensor, arg: Tensor) -> Tensor:
    return images.bitwise_not()


def _posterize(images: Tensor, arg: Tensor) -> Tensor:
    bits = arg.trunc().clamp(0, 8).long()
    return images & _column(256 - (256 >> bits), torch.uint8)


def _solarize(images: Tensor, arg: Tensor) -> Tensor:
    threshold = arg.clamp(0.0, 256.0).ceil().long()  # a value is below a threshold if it is below the next whole number
    low, high = (threshold - 1).clamp(min=0), threshold.clamp(max=255)
    # 1 where inverted, else 0, without a comparison (slow on bytes). Bytes wrap: for threshold 0 it is 0 - 255.
    reached = torch.minimum(torch.maximum(images, _column(low, torch.uint8)), _column(high, torch.uint8))
    reached.sub_(_column((threshold - 1) & 255, torch.uint8))
    return reached.neg_().bitwise_xor_(images)


def _solarize_add(images: Tensor, arg: Tensor) -> Tensor:
    addend = _column(arg.trunc().clamp(-256, 256), torch.int16)
    values = images.short()
    below = values.clamp(127, 128).neg_().add_(128)  # 1 below 128, else 0
    return below.mul_(addend).add_(values).clamp_(0, 255).to(torch.uint8)


def _brightness(images: Tensor, arg: Tensor) -> Tensor:
    return to_bytes(images.float().mul_(_column(arg, torch.float32)))


def _contrast(images: Tensor, arg: Tensor) -> Tensor:
    mean = STATISTICS[Op.CONTRAST](images)
    return blend(_column(mean, torch.float32), images.float(), _column(arg, torch.float32))


ARITHMETIC: dict[Op, Callable[[Tensor, Tensor], Tensor]] = {
    Op.INVERT: _invert,
    Op.POSTERIZE: _posterize,
    Op.SOLARIZE: _solarize,
    Op.SOLARIZE_ADD: _solarize_add,
    Op.BRIGHTNESS: _brightness,
    Op.CONTRAST: _contrast,
}
"""By operator: a function of uint8 ``(B, C, H, W)`` and arguments, float64 ``(B,)``, that returns new pictures."""
