"""Random numbers that are a function of (seed, sample, view, stream): no state, the same bits on any device.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a counter of four 32-bit
words and a key of two into four random words. Here the counter is (sample's low half, view, stream and block, sample's
high half) and the key is the seed, so that a draw depends on nothing else: not on the order of a batch, its size, the
process, the device or how often one drew before. All arithmetic is on integers, or exact in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import torch
from torch import Tensor

from effkit.errors import UserError
from kd_autoaug.ops.dispatch import resolve_backend
from kd_autoaug.ops.draw_triton import draw_words

__all__ = [
    "LAYERS",
    "PLACEMENT",
    "VERSION",
    "check_seed",
    "integers",
    "normal",
    "quantiles",
    "random_words",
    "uniform",
    "words_of",
]

VERSION = "philox4x32-10/1"  # part of every fingerprint: another scheme is another augmentation
PLACEMENT = 0  # the stream of padded crop, flip and final cutout
LAYERS = 16  # layer l of a policy has stream LAYERS + l

_MASK = 0xFFFFFFFF
_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
_MAX_BLOCKS = 256  # the block's number has eight bits of the counter
_MAX_STREAMS = 1 << 24
_QUANTILES = 1 << 16


def check_seed(seed: int) -> int:
    """The seed, if it is one.

    Raises:
        UserError: If it is no integer of 0 to 2^64 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 64:
        raise UserError(f"seed={seed!r} must be an integer from 0 to 2**64 - 1")
    return seed


def philox(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """Philox4x32-10.

    Args:
        counter: Words of 32 bits in int64, ``(4, ...)``.
        key: Two words of 32 bits.

    Returns:
        Random words of 32 bits in int64, ``(4, ...)``.
    """
    # Words 0 and 2 are multiplied, words 1 and 3 are mixed in: two tensors of two words halve the number of operations.
    # A product of 64 bits wraps in int64, yet its bits are those of the unsigned product, so both halves are right.
    column = (2,) + (1,) * (counter.dim() - 1)
    multiplied, mixed = counter[0::2], counter[1::2]
    factors, keys = _constants(key, counter.device)
    factors = factors.view(column)
    for round_key in keys.view(_ROUNDS, *column):
        product = multiplied * factors
        # New word 2 comes of product 0 and word 3, new word 0 of product 1 and word 1: the order of the two flips.
        multiplied = ((product >> 32) & _MASK).bitwise_xor_(mixed.flip(0)).bitwise_xor_(round_key).flip(0)
        mixed = product.bitwise_and_(_MASK).flip(0)
    return torch.stack((multiplied[0], mixed[0], multiplied[1], mixed[1]))


def words_of(
    seed: int, index: Tensor, view: Tensor | int, streams: Sequence[int], count: int, backend: str = "torch"
) -> Tensor:
    """Random words of several streams at once, in one pass.

    Args:
        seed: 0 to 2^64 - 1.
        index: The samples' numbers, int64 ``(B,)``, not negative.
        view: The view's number, 0 to 2^32 - 1, one for all or int64 ``(B,)``.
        streams: S numbers of independent streams, 0 to 2^24 - 1.
        count: Words wanted of each, at most 1024. A larger count begins with the words of a smaller one.
        backend: As of the operators; ``"triton"``, or ``"auto"`` on a GPU, draws in one launch, with the same bits.

    Returns:
        Words of 32 bits, int64 ``(S, count, B)``, on the device of ``index``.

    Raises:
        UserError: If ``seed`` is no seed.
    """
    check_seed(seed)
    blocks = -(-count // 4)
    assert 0 < blocks <= _MAX_BLOCKS
    assert all(0 <= s < _MAX_STREAMS for s in streams)
    if backend != "torch" and resolve_backend(backend, index.device) == "triton":
        return draw_words(seed, index, view, streams, count)
    device, batch = index.device, len(index)
    counter = torch.empty(4, len(streams), blocks, batch, dtype=torch.int64, device=device)
    counter[0] = index & _MASK
    counter[1] = view & _MASK
    counter[2] = _labels(tuple(streams), blocks, device)
    counter[3] = (index >> 32) & _MASK
    words = philox(counter, (seed & _MASK, seed >> 32))  # (4, S, blocks, B)
    return words.permute(1, 2, 0, 3).reshape(len(streams), 4 * blocks, batch)[:, :count]


def random_words(seed: int, index: Tensor, view: Tensor | int, stream: int, count: int) -> Tensor:
    """Random words of one stream; see :func:`words_of`.

    Returns:
        Words of 32 bits, int64 ``(B, count)``.
    """
    return words_of(seed, index, view, (stream,), count)[0].t()


def uniform(words: Tensor) -> Tensor:
    """Words as float64 in [0, 1): multiples of 2^-32, exact."""
    return words.double() * 2.0**-32


def integers(words: Tensor, n: int | Tensor) -> Tensor:
    """Words as integers of 0 to n - 1, n at most 2^31; a value's probability is off by less than n / 2^32 of itself."""
    return (words * n) >> 32


def normal(words: Tensor) -> Tensor:
    """Words as standard normal float64: the middle quantile of 65,536 equal parts, so at most 4.3 either way."""
    return quantiles(words.device)[words >> 16]


# Made once for each device: a copy from the host in every call would make the host wait for a GPU.
@lru_cache(maxsize=64)
def _constants(key: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """The factors ``(2,)`` and the keys of the rounds ``(10, 2)``, the second word's first."""
    keys = [[(key[1] + r * _WEYL_1) & _MASK, (key[0] + r * _WEYL_0) & _MASK] for r in range(_ROUNDS)]
    return torch.tensor([_MULTIPLIER_0, _MULTIPLIER_1]).to(device), torch.tensor(keys).to(device)


@lru_cache(maxsize=64)
def _labels(streams: tuple[int, ...], blocks: int, device: torch.device) -> Tensor:
    return torch.tensor([[[s << 8 | b] for b in range(blocks)] for s in streams]).to(device)


@lru_cache(maxsize=16)
def quantiles(device: torch.device) -> Tensor:
    """The middle quantiles of 65,536 equal parts of the normal distribution, float64, kept for each device."""
    # Rounded to 2^-20: libraries of mathematics differ in the last bits, so a table made on any machine is the same.
    inverse = NormalDist().inv_cdf
    table = [round(inverse((i + 0.5) / _QUANTILES) * 2**20) / 2**20 for i in range(_QUANTILES)]
    return torch.tensor(table, dtype=torch.float64).to(device)
