"""CSV files with a heading, perhaps below one line ``# {json}`` that says where the figures come from."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effkit.errors import UserError

__all__ = ["about_of", "read_columns"]


def about_of(path: Path) -> tuple[dict[str, Any], str]:
    """What a table says about itself, and its heading.

    Args:
        path: An existing file.

    Raises:
        UserError: If it is no text, or its first line is damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            line = file.readline()
            if not line.startswith("#"):
                return {}, line.strip()
            about = json.loads(line[1:])
            if not isinstance(about, dict):
                raise ValueError("the first line must hold a JSON object")
            return about, file.readline().strip()
    except (UnicodeDecodeError, ValueError) as error:
        raise UserError(f"table={str(path)!r} is no table: {' '.join(str(error).split())}") from error


def read_columns(path: Path, names: Sequence[str]) -> list[list[str]]:
    """Some columns as text; the others are dropped line by line, so that a wide file takes no more memory.

    Args:
        path: An existing file that has them.
        names: Of its heading.

    Raises:
        UserError: If a line is too short, or the file has no lines.
    """
    found: list[list[str]] = [[] for _ in names]
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(line for line in file if not line.startswith("#"))
        heading = next(lines)
        places = [heading.index(name) for name in names]
        for line in lines:
            if len(line) != len(heading):
                raise UserError(
                    f"table={str(path)!r}, row {len(found[0]) + 1} has {len(line)} cells, the heading {len(heading)}"
                )
            for values, place in zip(found, places, strict=True):
                values.append(line[place])
    if not found[0]:
        raise UserError(f"table={str(path)!r} has a heading and no rows")
    return found
