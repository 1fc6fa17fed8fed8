"""Files that nobody ever sees half written: under a temporary name beside the target, then renamed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from effkit.atomic import atomic
from effkit.report.cells import plain

__all__ = ["write_bytes", "write_json", "write_text"]


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text file so that nobody ever sees half of it: under a temporary name beside the target, then renamed."""
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """As `write_text`, for bytes; missing parent folders are made."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def write_json(path: str | os.PathLike[str], value: Any) -> Path:
    """Write `plain(value)` as indented JSON, atomically."""
    return write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
