"""Words of a command line, parsed by Hydra's grammar: each of them once, though a command composes several times."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

__all__ = ["parsed"]


def parsed(words: Sequence[str]) -> list[Override]:
    """Parse words.

    Args:
        words: As on the command line.

    Returns:
        Hydra's overrides, the caller's own.

    Raises:
        OverrideParseException: Hydra's, for the first word that its grammar does not have.
    """
    # What calls a function (shuffle) need not give the same again.
    return [_parse(word) if "(" in word else copy.copy(_known(word)) for word in words]


@lru_cache(maxsize=1024)
def _known(word: str) -> Override:
    return _parse(word)


def _parse(word: str) -> Override:
    return _parser().parse_overrides([word])[0]


@lru_cache(maxsize=1)
def _parser() -> OverridesParser:
    return OverridesParser.create()
