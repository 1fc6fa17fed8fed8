"""What a benchmark is asked for, checked before anything is built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from effkit.errors import UserError, choose
from effkit.outputs import check_output_file
from effkit.results import read_csv

__all__ = ["check_counts", "check_csv", "check_providers"]


def check_providers(names: Iterable[str], known: Iterable[str], field: str = "providers") -> list[str]:
    """Check that every provider is known, and that there is one.

    Args:
        names: As the user gave them.
        known: The providers there are.
        field: The key, for the message.

    Raises:
        UserError: If one is unknown, or there is none.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise UserError(f"{field}={names!r} must be a list of names")
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


def check_csv(value: Any, folder: Path, field: str = "csv") -> Path:
    """The results file that rows will be added to, checked before anything is measured.

    Args:
        value: The key's value; ``None`` is ``bench.csv`` in the run folder.
        folder: The run folder.
        field: The key, for the message.

    Raises:
        UserError: If it cannot be written, or exists and is no results file.
    """
    if value is None:
        return folder / "bench.csv"
    path = check_output_file(field, value, appends=True)
    if path.exists():
        read_csv(path)
    return path
