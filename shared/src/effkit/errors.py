"""The one error a user's mistake raises: it names the field, the value received and the values allowed.

Command lines print it as one line and exit with code 2; in a notebook it is an ordinary ``ValueError``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")

__all__ = ["RankFailed", "UserError", "choose", "nearest", "written"]


class UserError(ValueError):
    """A mistake in what the user asked for, with everything needed to mend it in one line."""


class RankFailed(RuntimeError):
    """A process of a distributed job has ended before the others, who cannot go on without it; says which, and why.

    Args:
        line: The whole story in one line.
        trace: The traceback of the process, where it crashed.
        interrupted: It was told to stop, and the job with it.
    """

    def __init__(self, line: str, trace: str = "", *, interrupted: bool = False) -> None:
        super().__init__(line)
        self.trace, self.interrupted = trace, interrupted


def nearest(name: object, allowed: Iterable[object]) -> str | None:
    """Return the allowed name most like ``name``, or ``None`` if nothing is alike.

    Args:
        name: What the user wrote.
        allowed: The names that exist.

    Returns:
        The closest of ``allowed`` (as text), or ``None``.
    """
    found = difflib.get_close_matches(str(name), [str(a) for a in allowed], n=1, cutoff=0.5)
    return found[0] if found else None


def written(value: object) -> str:
    """A value as it is written in a config: null, true and false in YAML's words, all else as in Python."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def choose(field: str, value: T, allowed: Iterable[T]) -> T:
    """Return ``value`` if it is one of ``allowed``.

    Args:
        field: The argument's name as the user writes it, e.g. ``"data.name"``.
        value: The value received.
        allowed: The values that exist.

    Returns:
        ``value`` itself.

    Raises:
        UserError: If ``value`` is not allowed; names the field, the value, the nearest and all allowed values.
    """
    options = list(allowed)
    if value in options:
        return value
    hint = nearest(value, options)
    did_you_mean = f"; did you mean {hint!r}?" if hint is not None else ""
    raise UserError(
        f"{field}={written(value)} is not known, choose one of {', '.join(map(str, options))}{did_you_mean}"
    )
