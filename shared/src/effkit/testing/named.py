"""An error speaks of the keys that the user can write: those of the command's config."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from effkit.errors import UserError

if TYPE_CHECKING:
    from effkit.cli import App

__all__ = ["assert_known_keys", "named_keys"]

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")  # values, which may hold anything
_CALLS = re.compile(r"\w+\([^()]*\)")  # randaugment(n=2,m=9)
_GIVEN = re.compile(r"(?<![\w.\-/@])([a-z_][\w.]*)=")
_FIRST = re.compile(r"([a-z_]\w*(?:\.\w+)+|[a-z]+_\w+)(?= (?:must|is|holds|has|needs)\b)")


def named_keys(line: str) -> set[str]:
    """The keys that a line speaks of: ``key=...`` anywhere, and a name with a dot or underscore as its subject.

    Example:
        >>> sorted(named_keys("batch_size must be at least 1; give trainer.max_epochs=3, not 'a=b' or f(n=2)"))
        ['batch_size', 'trainer.max_epochs']
    """
    plain = _CALLS.sub("", _QUOTED.sub("''", line))
    first = _FIRST.match(plain)
    return {*_GIVEN.findall(plain), *([first[1]] if first else [])}


def assert_known_keys(app: App, words: Sequence[str], err: str) -> None:
    """Assert that the error of a command names no key that its config does not have.

    Args:
        app: The program.
        words: The command and what followed it.
        err: What was printed on standard error.

    Raises:
        AssertionError: If it does; shows the line.
    """
    lines = [line for line in err.splitlines() if line.startswith(f"{app.prog}: error: ")]
    if not lines or not words or words[0] not in app.commands:
        return
    line = lines[0].removeprefix(f"{app.prog}: error: ")
    written = {word.lstrip("+~").partition("=")[0] for word in words}
    asked = {key for key in named_keys(line) if key not in written and not key.startswith("hydra.")}
    if not asked:
        return
    known = _keys(app, words[0], ())
    if asked - known:  # perhaps of a group that was chosen
        keys = {word: word.partition("=")[0] for word in words[1:] if "=" in word}
        choices = tuple(word for word, key in keys.items() if key in known and "." not in key)
        known |= _keys(app, words[0], choices)
    strange = sorted(asked - known)
    assert not strange, f"{', '.join(strange)}: no key of {app.prog} {words[0]}, but its error says so: {line}"


@functools.lru_cache(maxsize=256)
def _keys(app: App, command: str, overrides: tuple[str, ...]) -> frozenset[str]:
    found: set[str] = set()
    for words in (overrides, *((word,) for word in overrides)):  # one may be the mistake itself
        try:
            config = app.compose(command, list(words))
        except UserError:
            continue
        found |= set(_paths(config)) | {"experiment"}
    return frozenset(found)


def _paths(node: Any, prefix: str = "") -> Iterator[str]:
    from omegaconf import DictConfig

    for key in node:
        child = node._get_node(key)
        yield f"{prefix}{key}"
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            yield from _paths(child, f"{prefix}{key}.")
