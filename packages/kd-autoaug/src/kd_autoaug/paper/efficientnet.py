"""EfficientNets in closed form: parameters and multiply-adds without building one (timm takes seconds to import).

Mobile inverted bottlenecks with squeeze and excitation (Tan and Le 2019), widths and depths scaled as tensorflow/tpu
does. A test holds every size to timm's ``tf_efficientnet_b*``, which the commands train.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from effkit.errors import choose

__all__ = ["SIZES", "Counts", "efficientnet"]


class Size(NamedTuple):
    """How a size is scaled: factors of channels and of blocks, side of the pictures in pixels."""

    width: float
    depth: float
    side: int


SIZES: dict[str, Size] = {
    "B0": Size(1.0, 1.0, 224),
    "B1": Size(1.0, 1.1, 240),
    "B2": Size(1.1, 1.2, 260),
    "B3": Size(1.2, 1.4, 300),
    "B4": Size(1.4, 1.8, 380),
    "B5": Size(1.6, 2.2, 456),
    "B6": Size(1.8, 2.6, 528),
    "B7": Size(2.0, 3.1, 600),
    "B8": Size(2.2, 3.6, 672),
}

# Blocks, side of the kernel, stride of the first block, expansion, channels of each stage of B0.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD, _CLASSES = 32, 1280, 1000


class Counts(NamedTuple):
    """Parameters, and multiply-adds of convolutions and linear maps for one picture."""

    params: int
    macs: int


def _channels(count: int, width: float) -> int:
    """A multiple of 8 near ``count * width``, at least nine tenths of it."""
    scaled = count * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * scaled else rounded + 8


def _convolution(inputs: int, outputs: int, kernel: int, side: int) -> Counts:
    """A convolution without bias (``inputs`` per group) and its batch norm."""
    weights = inputs * outputs * kernel * kernel
    return Counts(weights + 2 * outputs, weights * side * side)


def _block(inputs: int, outputs: int, kernel: int, expansion: int, before: int, side: int) -> Iterator[Counts]:
    wide, few = inputs * expansion, round(inputs / 4)
    if expansion > 1:
        yield _convolution(inputs, wide, 1, before)
    yield _convolution(1, wide, kernel, side)  # depthwise
    yield Counts(2 * wide * few + few + wide, 2 * wide * few)  # squeeze and excitation: two maps of one pixel, biases
    yield _convolution(wide, outputs, 1, side)


def _parts(size: Size) -> Iterator[Counts]:
    side, inputs = math.ceil(size.side / 2), _channels(_STEM, size.width)
    yield _convolution(3, inputs, 3, side)
    for blocks, kernel, stride, expansion, channels in _STAGES:
        outputs = _channels(channels, size.width)
        for number in range(math.ceil(blocks * size.depth)):
            before, side = side, math.ceil(side / stride) if number == 0 else side
            yield from _block(inputs, outputs, kernel, expansion, before, side)
            inputs = outputs
    features = _channels(_HEAD, size.width)
    yield _convolution(inputs, features, 1, side)
    yield Counts((features + 1) * _CLASSES, features * _CLASSES)


@cache
def efficientnet(size: str) -> Counts:
    """Count a size with 1,000 classes, at its own side of pictures.

    Args:
        size: As in ``"B0"``.

    Raises:
        UserError: If there is no such size.

    Example:
        >>> efficientnet("B0")
        Counts(params=5288548, macs=385814752)
    """
    found = list(_parts(SIZES[choose("size", size, SIZES)]))
    return Counts(sum(c.params for c in found), sum(c.macs for c in found))
