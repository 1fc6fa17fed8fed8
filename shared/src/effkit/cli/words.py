"""``yes``, ``no``, ``on``, ``off`` on a command line: booleans in a YAML file, but text in Hydra's grammar.

Text is true, so that ``data.drop_last=no`` would switch the thing on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from effkit.errors import UserError

__all__ = ["booleans_read"]

_WORDS = {"yes": True, "on": True, "no": False, "off": False}


def booleans_read(overrides: Sequence[str], compose: Callable[[list[str]], Any]) -> list[str]:
    """Write the words as booleans where the config holds one.

    Args:
        overrides: Those of one job; they compose.
        compose: Composes the config from other overrides.

    Returns:
        The overrides; equal to those given if there is nothing to write otherwise.

    Raises:
        UserError: If the config holds nothing there, so that the word may be meant as either.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    # A quoted word is an object of its own and means the text; Hydra's node has types and reads the words itself.
    suspects = {
        str(override.input_line): override
        for override in OverridesParser.create().parse_overrides(list(overrides))
        if isinstance(override._value, str)
        and override._value.lower() in _WORDS
        and not override.is_delete()
        and not override.key_or_group.startswith("hydra")
    }
    if not suspects:
        return list(overrides)
    config = compose([line for line in overrides if line not in suspects])
    read = {line: line for line in overrides}
    for line, override in suspects.items():
        key, word = override.key_or_group, str(override._value)
        value = "true" if _WORDS[word.lower()] else "false"
        held = OmegaConf.select(config, key, throw_on_missing=False)
        if isinstance(held, bool):
            read[line] = f"{line.partition('=')[0]}={value}"
        elif held is None and key not in config.hydra.runtime.choices:
            raise UserError(f"{key}={word}: write {key}={value}, or {key}=\"'{word}'\" if the word {word!r} is meant")
    return [read[line] for line in overrides]
