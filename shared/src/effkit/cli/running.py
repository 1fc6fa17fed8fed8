"""The package whose job is running, for `effkit.cli.build`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = ["RUNNING", "running"]

# A stack, since a command may call another program's.
RUNNING: list[str] = []


@contextlib.contextmanager
def running(package: str) -> Iterator[None]:
    """Mark a package's job as running inside the block."""
    RUNNING.append(package)
    try:
        yield
    finally:
        RUNNING.pop()
