"""Lines that a library says once: what it chose, or what looks like a mistake and may be meant."""

from __future__ import annotations

import logging

__all__ = ["say_once"]

_said: set[str] = set()


def say_once(line: str, log: str = "effkit", level: int = logging.WARNING) -> None:
    """Log a line, the first time it is said in this process.

    Python shows warnings of a log on stderr where nobody has set logging up, so notebooks see them, too.

    Args:
        line: What to say.
        log: The logger's name.
        level: Of the log; ``logging.INFO`` for a choice that changes no result.
    """
    if line not in _said:
        _said.add(line)
        logging.getLogger(log).log(level, line)
