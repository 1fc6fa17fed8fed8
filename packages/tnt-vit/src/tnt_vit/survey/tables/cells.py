"""What the tables take from a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["MIB", "Row", "get"]

MIB = 2**20
Row = Mapping[str, Any]


def get(row: Row, *path: str, scale: float = 1.0) -> Any:
    """A value deep in a row, none where a part of the way is missing; numbers are divided by `scale`."""
    value: Any = row
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value / scale if isinstance(value, int | float) and scale != 1.0 else value
