"""Words of the user as values in Hydra's grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["gather_positional", "quote"]


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
