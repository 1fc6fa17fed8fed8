"""Words of the user: as values in Hydra's grammar, and those that a command does not read."""

from __future__ import annotations

import re
from collections.abc import Sequence

from effkit.errors import UserError

__all__ = ["gather_positional", "quote", "refuse_unread"]


def gather_positional(words: Sequence[str], key: str | None) -> list[str]:
    """Turn words that are no override into one override: ``a.jpg seed=1`` into ``seed=1``, ``images=['a.jpg']``."""
    if key is None:
        return list(words)
    bare = [word for word in words if "=" not in word and not word.startswith(("+", "~"))]
    rest = [word for word in words if word not in bare]
    return [*rest, f"{key}=[{','.join(quote(word) for word in bare)}]"] if bare else rest


def quote(word: str) -> str:
    """Quote a word for Hydra's grammar, so that it arrives as it is."""
    word = re.sub(r"(\\*)(\$\{)", lambda m: m[1] * 2 + r"\${", word)  # no interpolation
    word = re.sub(r"(\\*)'", lambda m: m[1] * 2 + r"\'", word)
    return "'" + re.sub(r"(\\+)$", lambda m: m[1] * 2, word) + "'"


def refuse_unread(program: str, words: Sequence[str], unread: Sequence[str]) -> None:
    """Refuse words for groups that a command does not read.

    Args:
        program: Program and command.
        words: The overrides.
        unread: The groups.

    Raises:
        UserError: Names the first of them.
    """
    for word in words:
        group = re.split(r"[.=@]", word.lstrip("+~"), maxsplit=1)[0]
        if group in unread:
            raise UserError(f"{program} does not read {group!r}, which only an experiment may set: leave {word} out")
