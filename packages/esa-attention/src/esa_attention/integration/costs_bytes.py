"""Bytes in closed form: what a decoding step reads, what the cache holds; see :mod:`.costs`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from effkit.errors import choose
from esa_attention.attention.segments import segments
from esa_attention.config import ESAConfig
from esa_attention.integration.model_shape import RANK, ModelShape, at_least, check_rank

__all__ = [
    "CacheBytes",
    "Storage",
    "break_even_length",
    "cache_bytes",
    "cache_overhead",
    "decode_ratio",
    "decode_ratio_limit",
    "esa_decode_bytes",
    "full_decode_bytes",
]

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}


@dataclass(frozen=True)
class Storage:
    """Bytes of what is cached.

    Args:
        kv: Bytes of a number in keys and values.
        index: Bytes of a number in compressed keys.
        scale: Bytes of a token's scale beside its compressed key; 4 for an 8-bit index, else 0.

    Raises:
        UserError: If a number of bytes is out of range.
    """

    kv: int = 2
    index: int = 2
    scale: int = 0

    def __post_init__(self) -> None:
        for name, least in (("kv", 1), ("index", 1), ("scale", 0)):
            at_least(name, getattr(self, name), least)

    @classmethod
    def named(cls, kv: str = "bf16", index: str = "auto") -> Storage:
        """Storage of named types, with the float32 scale that our 8-bit index keeps for every token.

        Args:
            kv: ``fp32``, ``bf16`` or ``fp16``.
            index: The same or ``int8``; ``auto`` is that of keys and values.

        Raises:
            UserError: If a type is unknown.
        """
        choose("dtype", kv, [name for name in _BYTES if name != "int8"])
        choose("index_dtype", index, ["auto", *_BYTES])
        return cls(_BYTES[kv], _BYTES[kv if index == "auto" else index], 4 if index == "int8" else 0)

    def token(self, shape: ModelShape) -> int:
        """Bytes of a token's keys and values."""
        return 2 * shape.key_dim * self.kv

    def index_token(self, rank: int) -> int:
        """Bytes of a token's compressed key."""
        return rank * self.index + self.scale


def cache_overhead(shape: ModelShape, rank: int = RANK, storage: Storage | None = None) -> float:
    """What compressed keys add to the cache, as a share of keys and values; ``d' / (2 d_G)`` where types are alike."""
    check_rank(rank, shape)
    storage = storage or Storage()
    return storage.index_token(rank) / storage.token(shape)


def full_decode_bytes(shape: ModelShape, length: int, storage: Storage | None = None) -> int:
    """Bytes that a decoding step of full attention reads: all keys and values of ``length`` tokens."""
    at_least("length", length, 1)
    return length * (storage or Storage()).token(shape)


def esa_decode_bytes(
    shape: ModelShape, config: ESAConfig, length: int, rank: int = RANK, storage: Storage | None = None
) -> int:
    """Bytes that a decoding step of ESA reads: compressed keys of the middle part, keys and values of what is attended.

    Queries, scores and the new token's own rows are left out; they are some kilobytes, whatever the length.

    Args:
        shape: The model.
        config: Sizes of the segments.
        length: Tokens in all, the new one included (S).
        rank: Compressed dimension (d').
        storage: Types; bfloat16 throughout if not given.
    """
    check_rank(rank, shape)
    at_least("length", length, 1)
    storage = storage or Storage()
    middle = segments(length - 1, length, config.num_initial, config.num_local).num_middle
    if middle <= config.num_selected:
        return full_decode_bytes(shape, length, storage)
    index = middle * storage.index_token(rank)
    return index + (length - middle + config.num_selected) * storage.token(shape)


def decode_ratio(
    shape: ModelShape, config: ESAConfig, length: int, rank: int = RANK, storage: Storage | None = None
) -> float:
    """How many times fewer bytes a decoding step reads under ESA: where bandwidth is the limit, no step is faster.

    Example:
        >>> round(decode_ratio(ModelShape(32, 32, 8, 128), ESAConfig(), 131_072), 2)
        9.23
    """
    return full_decode_bytes(shape, length, storage) / esa_decode_bytes(shape, config, length, rank, storage)


def decode_ratio_limit(shape: ModelShape, rank: int = RANK, storage: Storage | None = None) -> float:
    """What :func:`decode_ratio` tends to as the length grows."""
    return 1 / cache_overhead(shape, rank, storage)


def break_even_length(
    shape: ModelShape, config: ESAConfig, rank: int = RANK, storage: Storage | None = None
) -> int | None:
    """The least length from which a decoding step of ESA reads no more than full attention, ever after.

    Below it either nothing is scored (and both read the same), or the index costs more than it saves.

    Returns:
        Tokens in all; ``None`` if a compressed key is no smaller than keys and values.
    """
    check_rank(rank, shape)
    storage = storage or Storage()
    token, index = storage.token(shape), storage.index_token(rank)
    if index >= token:
        return None
    always = config.num_initial + config.num_local + 1
    # (length - always) * token >= (length - always) * index + k * token
    return always + math.ceil(config.num_selected * token / (token - index))


@dataclass(frozen=True)
class CacheBytes:
    """Memory of the cache of one sequence, all layers; of tokens held, without the room that buffers keep to grow.

    Attributes:
        kv: Keys and values.
        index: Compressed keys.
        window: Local keys kept a second time, rotated; it does not grow with the sequence. The Triton kernels rotate
            them as they read, and need none.
    """

    kv: int
    index: int
    window: int

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return self.kv + self.index + self.window


def cache_bytes(
    shape: ModelShape,
    config: ESAConfig,
    length: int,
    rank: int = RANK,
    storage: Storage | None = None,
    *,
    window_values: bool = False,
) -> CacheBytes:
    """Memory of the cache of one sequence.

    Args:
        shape: The model.
        config: Sizes of the segments.
        length: Tokens held.
        rank: Compressed dimension (d').
        storage: Types; bfloat16 throughout if not given.
        window_values: The rotated window holds values too, as it does on a CPU and with ``offload``.
    """
    check_rank(rank, shape)
    at_least("length", length, 0)
    storage = storage or Storage()
    room = config.num_local + 2 * config.chunk_size
    half = storage.token(shape) // 2
    return CacheBytes(
        kv=shape.num_layers * length * storage.token(shape),
        index=shape.num_layers * length * storage.index_token(rank),
        window=shape.num_layers * room * half * (2 if window_values else 1),
    )
