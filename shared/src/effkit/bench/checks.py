"""What a benchmark is asked for, checked before anything is built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from effkit.errors import UserError, choose

__all__ = ["check_counts", "check_providers"]


def check_providers(names: Iterable[str], known: Iterable[str], field: str = "bench.providers") -> list[str]:
    """Check that every provider is known, and that there is one.

    Args:
        names: As the user gave them.
        known: The providers there are.
        field: The key, for the message.

    Raises:
        UserError: If one is unknown, or there is none.
    """
    known = list(known)
    found = [choose(field, name, known) for name in names]
    if not found:
        raise UserError(f"providers is empty, name some of {', '.join(known)}")
    return found


def check_counts(field: str, values: Any, least: int = 1) -> list[int]:
    """Check a list of whole numbers, such as batch sizes or lengths.

    Args:
        field: The key, for the message.
        values: One number or several.
        least: The smallest that is allowed.

    Raises:
        UserError: If the list is empty, or a value is no whole number of at least ``least``.
    """
    numbers = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else [values]
    if not numbers:
        raise UserError(f"{field} is empty, give at least one whole number")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise UserError(f"{field} must be whole numbers of at least {least}, got {number!r}")
    return numbers
