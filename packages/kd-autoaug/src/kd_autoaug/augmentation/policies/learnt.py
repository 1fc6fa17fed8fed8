"""The lists that Fast AutoAugment learnt, from files beside the code: 50 kB each, read when asked for, then kept."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from effkit.errors import UserError, choose
from kd_autoaug.augmentation.policies.entries import Entry, check_probability, parse

__all__ = ["LISTS", "learnt", "list_file", "read_list"]

LISTS = ("cifar10", "imagenet", "svhn")
"""What a list was learnt on."""

Rows = tuple[tuple[Entry, ...], ...]


def list_file(data: str) -> str:
    """Path of a list's file below this folder."""
    return f"data/fast_aa_{choose('list', data, LISTS)}.txt"


@cache
def learnt(data: str) -> Rows:
    """The sub-policies that were learnt on a data set; levels are those of space ``fast_aa``.

    Args:
        data: One of ``LISTS``.

    Raises:
        UserError: If there is no such list, or its file is missing or damaged: reinstalling the package helps.
    """
    name = list_file(data)
    try:
        text = (files("kd_autoaug.augmentation.policies") / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{name} of this package cannot be read, install it again: {error}") from error
    return read_list(text, name)


def read_list(text: str, name: str) -> Rows:
    """Read sub-policies, one a line as ``entries`` describes; lines that begin with ``#`` say where they are from.

    Args:
        text: Of a file.
        name: What to call the file in a message.

    Raises:
        UserError: If a line reads otherwise, a probability is none, or there are no sub-policies.
    """
    rows: list[tuple[Entry, ...]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        where = f"{name}, line {number}"
        try:
            rows += parse(line)
        except (KeyError, ValueError) as error:
            raise UserError(f"{where}: {line!r} must read OPERATOR PROBABILITY LEVEL | ...") from error
        for entry in rows[-1]:
            check_probability(f"{where}: probability", entry.prob)
    if not rows:
        raise UserError(f"{name} holds no sub-policies")
    return tuple(rows)
