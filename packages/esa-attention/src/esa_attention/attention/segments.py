"""The four parts of a sequence that a chunk sees (section 3.2 of the paper): initial, middle, local, current."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Segments", "segments"]


class Segments(NamedTuple):
    """Token ranges ``[begin, end)`` in the cache; initial, middle, local and current follow one another.

    Attributes:
        start: First real token; padding may stand before it.
        initial_end: End of the initial tokens (I), beginning of the middle (M).
        local: Beginning of the local tokens (L), end of the middle.
        current: Beginning of the chunk (C), end of the local tokens.
        end: End of the chunk.
    """

    start: int
    initial_end: int
    local: int
    current: int
    end: int

    @property
    def num_middle(self) -> int:
        """Tokens that are selected from (l_M)."""
        return self.local - self.initial_end


def segments(current: int, end: int, num_initial: int, num_local: int, start: int = 0) -> Segments:
    """Cut a sequence for the chunk ``[current, end)``.

    With ``P`` tokens before the chunk the local part is the last ``min(num_local, P)`` of them, the initial part the
    first ``min(num_initial, P - |L|)``, the middle what is left.

    Args:
        current: First token of the chunk.
        end: One past its last token.
        num_initial: Size of the initial part (l_I).
        num_local: Size of the local part (l_L).
        start: First real token, where padding stands on the left.

    Example:
        >>> segments(100, 101, num_initial=4, num_local=16)
        Segments(start=0, initial_end=4, local=84, current=100, end=101)
    """
    past = current - start
    num_l = min(num_local, past)
    num_i = min(num_initial, past - num_l)
    return Segments(start, start + num_i, current - num_l, current, end)
