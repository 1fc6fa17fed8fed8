"""A piece of work with a name."""

from __future__ import annotations

from typing import Any

__all__ = ["Task"]


class Task:
    """A piece of work: what a function is called with, and a name for messages.

    Args:
        name: For messages, e.g. ``"samples 0 to 512"``.
        *args: Arguments of the function.
        **kwargs: Likewise.
    """

    def __init__(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        self.name, self.args, self.kwargs = name, args, kwargs
