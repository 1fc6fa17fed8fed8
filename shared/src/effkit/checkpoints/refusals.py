"""One line for a file that holds no weights, whatever bytes are in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from effkit.errors import UserError

__all__ = ["CheckpointError", "MissingCheckpointError", "listed", "shown"]

_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b.")
_LONGEST = 200


class CheckpointError(UserError):
    """A file that cannot be read as tensors.

    Args:
        path: The file.
        reason: What it is instead, and what to do.

    Attributes:
        path: The file.
        reason: The line without the file's name.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, line: str = "cannot be read as tensors: {}") -> None:
        self.path, self.reason = os.fspath(path), reason
        super().__init__(f"weights {self.path!r} {line.format(reason)}")


class MissingCheckpointError(CheckpointError, FileNotFoundError):
    """A file that is not there."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path, "give a .safetensors or torch file", "do not exist: {}")

    def __str__(self) -> str:
        return str(self.args[0])


def shown(text: object, longest: int = _LONGEST) -> str:
    """Text that comes from a file, fit for a terminal: its first line, printable characters only, not endless."""
    lines = [line for line in _ESCAPES.sub("", str(text)).splitlines() if line.strip()]
    line = "".join(c for c in " ".join(lines[:1]).strip() if c.isprintable())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def listed(names: Iterable[object], most: int = 3) -> str:
    """The first names, and how many more there are."""
    every = [shown(name, 80) for name in names]
    rest = len(every) - most
    return ", ".join(every[:most]) + (f" and {rest} more" if rest > 0 else "")
