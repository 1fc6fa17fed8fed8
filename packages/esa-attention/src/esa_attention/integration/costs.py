"""What attention costs, in closed form: operations (Appendix A of the paper), bytes read, memory, parameters.

Letters in brackets are the paper's. Everything is per layer unless a function says otherwise, and nothing is measured
here: these are the bounds that measurements are held against.
"""

from __future__ import annotations

from dataclasses import dataclass

from esa_attention.attention.segments import segments
from esa_attention.config import ESAConfig
from esa_attention.integration.costs_bytes import (
    CacheBytes,
    Storage,
    break_even_length,
    cache_bytes,
    cache_overhead,
    decode_ratio,
    decode_ratio_limit,
    esa_decode_bytes,
    full_decode_bytes,
)
from esa_attention.integration.model_shape import RANK, ModelShape, at_least, check_rank

__all__ = [
    "CacheBytes",
    "ModelShape",
    "Operations",
    "Storage",
    "break_even_length",
    "cache_bytes",
    "cache_overhead",
    "compressor_parameters",
    "decode_ratio",
    "decode_ratio_limit",
    "esa_decode_bytes",
    "esa_operations",
    "full_decode_bytes",
    "full_operations",
    "operations_ratio",
    "operations_ratio_limit",
]


@dataclass(frozen=True)
class Operations:
    """Operations of one step of ESA; a multiplication and an addition are two.

    Attributes:
        maps: The linear maps of queries and keys.
        biases: Their biases.
        scores: Scores of the middle tokens.
        attention: Attention to what is read.
    """

    maps: int
    biases: int
    scores: int
    attention: int

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return self.maps + self.biases + self.scores + self.attention


def full_operations(shape: ModelShape, length: int, tokens: int = 512) -> int:
    r"""Operations of full attention: :math:`(4 d_H + 3 H)\, l_C\, S` (Appendix A).

    The paper counts every pair of a chunk's token and a cached one, also those that the causal mask hides.

    Args:
        shape: The model.
        length: Tokens in all, those of the chunk included (S).
        tokens: Tokens of the chunk (l_C).
    """
    return (4 * shape.query_dim + 3 * shape.num_heads) * _chunk(length, tokens) * length


def esa_operations(
    shape: ModelShape,
    config: ESAConfig,
    length: int,
    rank: int = RANK,
    *,
    tokens: int | None = None,
    folded: bool = False,
    max_filter: bool = False,
) -> Operations:
    r"""Operations of one step of ESA (Appendix A).

    :math:`4 l_C d_H d' + 2 l_C d' + (2 d' + 1)\, l_M l_C + (4 d_H + 3 H)\, l_C\, (l_I + l_L + l_C + k)`. Where the
    middle part has no more than ``k`` tokens, nothing is scored and no query is mapped.

    Args:
        shape: The model.
        config: Sizes of the segments.
        length: Tokens in all, those of the chunk included (S).
        rank: Compressed dimension (d').
        tokens: Tokens of the chunk; ``config.chunk_size`` if not given, 1 for a decoding step.
        folded: Count what is computed here: maps of ``d_G`` numbers without biases, after the queries of a group are
            added up. The paper's maps act on all ``d_H``.
        max_filter: Count the max filter too, ``(1 + 2 eps) l_M``, which the paper names and leaves out of its sum.

    Raises:
        UserError: If a size is out of range.
    """
    check_rank(rank, shape)
    t = _chunk(length, config.chunk_size if tokens is None else tokens)
    cut = segments(length - t, length, config.num_initial, config.num_local)
    scored = cut.num_middle > config.num_selected
    mapped = 2 if scored else 1  # keys are always mapped, because later steps may score them
    width = shape.key_dim if folded else shape.query_dim
    maps = 2 * mapped * t * width * rank
    if folded and scored:
        maps += t * (shape.query_dim - shape.key_dim)
    scores = (2 * rank + 1) * cut.num_middle * t if scored else 0
    if max_filter and scored:
        scores += (1 + 2 * config.proximity) * cut.num_middle
    read = length - cut.num_middle + min(cut.num_middle, config.num_selected)
    return Operations(
        maps=maps,
        biases=0 if folded else mapped * t * rank,
        scores=scores,
        attention=(4 * shape.query_dim + 3 * shape.num_heads) * t * read,
    )


def operations_ratio(
    shape: ModelShape, config: ESAConfig, length: int, rank: int = RANK, *, tokens: int | None = None
) -> float:
    """Operations of ESA over those of full attention, at a length.

    Example:
        >>> llama3_8b = ModelShape(32, 32, 8, 128)
        >>> round(100 * operations_ratio(llama3_8b, ESAConfig(), 65_536), 2)
        11.99
    """
    t = config.chunk_size if tokens is None else tokens
    return esa_operations(shape, config, length, rank, tokens=t).total / full_operations(shape, length, t)


def operations_ratio_limit(shape: ModelShape, rank: int = RANK) -> float:
    r"""What the ratio tends to as the length grows: :math:`(2 d' + 1) / (4 d_H + 3 H)` (Appendix A).

    A limit only: for Llama-3-8B it is 1.56 %, while the ratio is still 12 % at 64k tokens.
    """
    check_rank(rank, shape)
    return (2 * rank + 1) / (4 * shape.query_dim + 3 * shape.num_heads)


def compressor_parameters(shape: ModelShape, rank: int = RANK, *, folded: bool = True, bias: bool = False) -> int:
    """Parameters of the maps of all layers.

    Args:
        shape: The model.
        rank: Compressed dimension (d').
        folded: Maps act on ``d_G`` numbers, else on the paper's ``d_H``.
        bias: Maps have biases, as the paper's have.
    """
    check_rank(rank, shape)
    width = shape.key_dim if folded else shape.query_dim
    return 2 * shape.num_layers * rank * (width + int(bias))


def _chunk(length: int, tokens: int) -> int:
    """Tokens of the chunk that ends at ``length``."""
    at_least("length", length, 1)
    at_least("tokens", tokens, 1)
    return min(length, tokens)
