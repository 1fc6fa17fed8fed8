"""Worker processes that a test file starts once: importing torch and a package takes each of them seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from effkit.executors import Choice

__all__ = ["two_workers"]


@contextlib.contextmanager
def two_workers() -> Iterator[None]:
    """Let everything that asks for ``executor="process"`` inside the block use the same two workers, a thread each.

    For a fixture of a whole file. What a worker leaves behind, the next test finds; results must not depend on it.
    """
    import pytest

    opened = Choice.open
    with opened(Choice("process", workers=2, threads=2)) as pool, pytest.MonkeyPatch.context() as patch:

        def reuse(self: Choice, **options: Any) -> Any:
            return contextlib.nullcontext(pool) if self.executor == "process" else opened(self, **options)

        patch.setattr(Choice, "open", reuse)
        yield
