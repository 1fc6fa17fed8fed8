"""Where tokens stand in the picture."""

from __future__ import annotations

import math

__all__ = ["places", "side_of"]


def side_of(count: int) -> int | None:
    """Places a side of a square of so many; none if it is no square."""
    side = math.isqrt(max(count, 0))
    return side if side and side * side == count else None


def places(count: int, prefix: int = 0) -> tuple[int, int] | None:
    """How many tokens stand before those of a square of places, and how many places a side has.

    Args:
        count: Tokens of a picture.
        prefix: Class tokens that the network says it has; a block may have them or not. One that says nothing of them
            may still have one.

    Returns:
        Tokens before, and side; none if no square is left.
    """
    for extra in dict.fromkeys((prefix, 0, 1)):
        side = side_of(count - extra)
        if side is not None:
            return extra, side
    return None
