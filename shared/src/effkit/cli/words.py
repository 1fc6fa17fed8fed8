"""Booleans on a command line: ``yes``, ``no``, ``on``, ``off`` are text in Hydra's grammar, as any other word is.

Text is true, so that ``data.drop_last=no`` and ``claim=maybe`` would switch the thing on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from effkit.errors import UserError

__all__ = ["booleans_read"]

_WORDS = {"yes": True, "on": True, "no": False, "off": False}
# Keys that take more than true and false: Lightning's "warn", and weights by path or name (timm's word for them).
_MORE: dict[str, Callable[[Any], bool]] = {
    "deterministic": lambda value: value == "warn",
    "pretrained": lambda value: isinstance(value, str),
}


def booleans_read(overrides: Sequence[str], held: Any) -> list[str]:
    """Write the words as booleans where the config holds one, in lists and mappings too.

    Args:
        overrides: Those of one job; they compose.
        held: The config before them, a `DictConfig`.

    Returns:
        The overrides; equal to those given if there is nothing to write otherwise.

    Raises:
        UserError: If the config holds nothing there, so that a word may be meant as either; or if it holds a boolean
            and is given something else.
    """
    from hydra.core.override_parser.types import Override

    from effkit.cli.overrides import parsed

    read = []
    for line, override in zip(overrides, parsed(overrides), strict=True):
        key, value = override.key_or_group, cast(Any, override._value)
        # Hydra's node has types and reads the words itself; a group is given the name of an option.
        if override.is_delete() or override.is_sweep_override() or key.split(".")[0] == "hydra" or "/" in key:
            read.append(line)
            continue
        group = isinstance(value, str) and isinstance(_held(held, key), dict)
        meant = value if group else _meant(key, value, _held(held, key), written=key)
        if meant != value or type(meant) is not type(value):
            line = f"{line.partition('=')[0]}={Override._get_value_element_as_str(meant)}"
        read.append(line)
    return read


def _held(config: Any, key: str) -> Any:
    """What the config holds there, as plain values; ``None`` for nothing."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        found = OmegaConf.select(config, key, throw_on_missing=False)
    except OmegaConfBaseException:  # an interpolation that has no value yet
        return ""
    return OmegaConf.to_container(found, resolve=False) if OmegaConf.is_config(found) else found


def _meant(key: str, value: Any, held: Any, written: str) -> Any:
    """The value with words as booleans where booleans stand.

    Args:
        key: The full key, down to what is looked at.
        value: Parsed by Hydra; a quoted text is an object of its own and means the text.
        held: What the config holds there.
        written: The key on the command line.
    """
    if isinstance(held, bool) and isinstance(value, dict | list):
        raise _no_boolean(key, value)
    if isinstance(value, dict):
        inside = held if isinstance(held, dict) else {}
        return {k: _meant(f"{key}.{k}", v, inside.get(str(k)), written) for k, v in value.items()}
    if isinstance(value, list):
        # All elements of a list are alike: those of the list there tell.
        example = held[0] if isinstance(held, list) and held else None
        return [_meant(f"{key}.{n}", v, example, written) for n, v in enumerate(value)]
    if isinstance(value, str) and value.lower() in _WORDS:
        meant = _WORDS[value.lower()]
        if isinstance(held, bool):
            return meant
        if held is None:
            raise _ambiguous(key, value, str(meant).lower(), written)
        return value
    if isinstance(held, bool) and not isinstance(value, bool) and value is not None:
        if value in (0, 1):
            return bool(value)
        text = _text(value)
        more = _MORE.get(key.rpartition(".")[2])
        if "${" not in text and not (more is not None and more(value if isinstance(value, str) else text)):
            raise _no_boolean(key, text)
    return value


def _text(value: Any) -> str:
    return str(getattr(value, "text", value))  # of a quoted text


def _ambiguous(key: str, word: str, meant: str, written: str) -> UserError:
    if key == written:
        return UserError(f"{key}={word}: write {key}={meant}, or {key}=\"'{word}'\" if the word {word!r} is meant")
    return UserError(f"{written}: {word} in {key}: write {meant}, or '{word}' in quotes if the word is meant")


def _no_boolean(key: str, value: Any) -> UserError:
    return UserError(f"{key}={value} must be true or false")
