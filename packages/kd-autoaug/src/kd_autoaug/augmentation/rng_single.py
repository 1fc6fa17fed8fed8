"""The random words of one picture in Python's own integers: the bits of :func:`kd_autoaug.augmentation.rng.words_of`.

All blocks lie side by side in one long integer, 64 bits each: a 32-bit word times a 32-bit factor stays in its place,
so that a round is a dozen operations however many blocks there are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from kd_autoaug.augmentation import rng

__all__ = ["picture_words"]

_MASK = rng._MASK
_PLACE = 64  # bits of a block


class _Places(NamedTuple):
    """What does not depend on the picture."""

    keys: tuple[tuple[int, int], ...]  # of the rounds, repeated in every place
    labels: int  # stream and number of each block
    ones: int
    masks: int
    size: int
    read: Callable[[bytes], tuple[Any, ...]]


@lru_cache(maxsize=64)
def _places(seed: int, streams: tuple[int, ...], blocks: int) -> _Places:
    rng.check_seed(seed)
    labels = [stream << 8 | block for stream in streams for block in range(blocks)]
    count = len(labels)
    ones = sum(1 << _PLACE * n for n in range(count))
    low, high = seed & _MASK, seed >> 32
    steps = [(r * rng._WEYL_0, r * rng._WEYL_1) for r in range(rng._ROUNDS)]
    keys = tuple((((low + a) & _MASK) * ones, ((high + b) & _MASK) * ones) for a, b in steps)
    packed = sum(label << _PLACE * n for n, label in enumerate(labels))
    return _Places(keys, packed, ones, _MASK * ones, 8 * count, struct.Struct(f"<{2 * count}I").unpack)


def picture_words(
    seed: int, index: int, view: int, streams: tuple[int, ...], blocks: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Random words of several streams for one picture.

    Args:
        seed: 0 to 2^64 - 1.
        index: The sample's number, 0 to 2^63 - 1.
        view: The view's number, 0 to 2^32 - 1.
        streams: Numbers of independent streams, 0 to 2^24 - 1.
        blocks: Of four words, wanted of each stream.

    Returns:
        Words 0 and 1 of every block in turn, block after block and stream after stream; words 2 and 3 likewise.

    Raises:
        UserError: If ``seed`` is no seed.
    """
    keys, c2, ones, masks, size, read = _places(seed, streams, blocks)
    factor_0, factor_1 = rng._MULTIPLIER_0, rng._MULTIPLIER_1
    c0, c1, c3 = (index & _MASK) * ones, view * ones, (index >> 32) * ones
    for k0, k1 in keys:
        p0, p1 = c0 * factor_0, c2 * factor_1
        c0 = (p1 >> 32) & masks ^ c1 ^ k0
        c2 = (p0 >> 32) & masks ^ c3 ^ k1
        c1, c3 = p1 & masks, p0 & masks
    return read((c0 | c1 << 32).to_bytes(size, "little")), read((c2 | c3 << 32).to_bytes(size, "little"))
