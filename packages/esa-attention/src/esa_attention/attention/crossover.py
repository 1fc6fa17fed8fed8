"""Up to which length full attention is faster than scoring, selecting and attending: measured, by device and type.

A decoding step of full attention costs in proportion to the tokens held; one of ESA hardly grows, but begins with what
it must read at any length. Where the two meet depends on the machine: ``esa-attention bench crossover`` measures it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import torch

__all__ = ["MEASURED", "crossover_length", "dense_limit", "meeting_point"]

# How many times faster than the best full attention a decoding step of a Llama-3-8B layer was, by length.
MEASURED: dict[tuple[str, torch.dtype], tuple[tuple[int, float], ...]] = {
    # A Xeon, two threads.
    ("cpu", torch.float32): ((4096, 0.45), (8192, 0.66), (16384, 1.23)),
    # One H100, torch 2.11, against the flash kernel (2026-11-27): ESA's step is bound by launches, not by bytes.
    ("cuda", torch.bfloat16): ((32768, 0.05), (131072, 0.10), (262144, 0.24)),
}


def meeting_point(points: Iterable[tuple[int, float]]) -> int | None:
    """The length from which ESA is faster at every longer one that was measured.

    Between two lengths the ratio is taken as a power of the length.

    Args:
        points: Pairs of length and how many times faster ESA was.

    Returns:
        Tokens; the shortest length if ESA was faster at all, ``None`` if it was slower at the longest.

    Example:
        >>> meeting_point([(1024, 0.5), (4096, 2.0)])
        2048
    """
    ordered = sorted(points)
    if not ordered or ordered[-1][1] < 1:
        return None
    slower = [number for number, (_, ratio) in enumerate(ordered) if ratio < 1]
    if not slower:
        return ordered[0][0]
    (low, below), (high, above) = ordered[slower[-1]], ordered[slower[-1] + 1]
    share = math.log(1 / below) / math.log(above / below)
    return round(low * (high / low) ** share)


@functools.cache
def crossover_length(kind: str, dtype: torch.dtype) -> int | None:
    """Where ESA becomes faster, as far as it was measured.

    Args:
        kind: Of device (``cpu``, ``cuda`` ...).
        dtype: Of keys and values; where it was not measured on such a device, the longest of what was is taken.

    Returns:
        Tokens; ``None`` where ESA was not seen to be faster at any length.
    """
    rows = [points for (where, type_), points in MEASURED.items() if where == kind and type_ == dtype]
    rows = rows or [points for (where, _), points in MEASURED.items() if where == kind]
    found = [meeting_point(points) for points in rows]
    return None if not found or None in found else max(n for n in found if n is not None)


def dense_limit(trained_context: int, kind: str, dtype: torch.dtype) -> int:
    """What ``dense_until="auto"`` means: the crossover, but no position that the model was not trained on.

    Args:
        trained_context: Longest sequence the model was trained on.
        kind: Of device.
        dtype: Of keys and values.
    """
    crossover = crossover_length(kind, dtype)
    return trained_context if crossover is None else min(crossover, trained_context)
