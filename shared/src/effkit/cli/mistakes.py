"""The one line for a command line that does not fit the configs.

Hydra's own messages are several lines long and suggest adding a mistyped key with ``+``. Here they become one line with
the value received, the names that exist in that place, and the one that was probably meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from effkit.cli.explain import explain, one_line
from effkit.errors import UserError, choose, nearest

_MANY = 12  # a longer list of names is left out where the one that was meant can be guessed


def explain_composition(
    error: Exception,
    program: str,
    overrides: Sequence[str],
    options: Callable[[str], Sequence[str]],
    compose: Callable[[Sequence[str]], Any],
) -> str | None:
    """Say in one line why no config could be composed.

    Args:
        error: What Hydra, OmegaConf or the YAML parser raised.
        program: Program and command, e.g. ``"tnt-vit train"``.
        overrides: All words of the command line.
        options: Gives the options of a config group, ``[]`` if there is no such group.
        compose: Composes the config of the command from other overrides (with the node ``hydra``).

    Returns:
        The line, or `None` if it is no mistake of the user.
    """
    names = {c.__name__ for c in type(error).__mro__}
    message = str(error)
    if "OverrideParseException" in names:
        return _unreadable_override(error.override, message)  # type: ignore[attr-defined]
    if "MissingConfigException" in names:
        return _missing_config(error, overrides, options)
    if found := re.match(r"Could not override '([^']+)'\. No match in the defaults list", message):
        return _unused_group(found[1], program, overrides, compose)
    if found := re.match(r"Could not (?:override|delete from config\.) '([^']+)'", message):
        return _unknown_key(found[1], program, overrides, compose)
    if found := re.match(r"Ambiguous value for argument '(.*)'", message):
        return f"{found[1]!r} names several values: --multirun runs one job for each, [ ] around them makes a list"
    if found := re.match(r"Sweep parameters '(.*)' requires --multirun", message):
        return f"{found[1]!r} names several values: --multirun runs one job for each"
    if found := re.match(r"You must specify '([^']+)'", message):
        return f"{found[1]} must be given, choose one of {', '.join(options(found[1]))}: {found[1]}=..."
    if found := re.match(r"Multiple values for ([^ ]+)\. To override", message):
        return f"{program} has the group {found[1]!r} already, write {found[1]}=... without +"
    if found := re.match(r"Error merging override (.*)", message):
        return f"{found[1]}: {one_line(str(error.__cause__).split('full_key:')[0])}"
    if message.startswith("Config group override must be a string") or "deletion value must be a string" in message:
        return _not_an_option(overrides, options) or one_line(message)
    if "YAMLError" in names:
        return f"a config file is no valid YAML: {one_line(message)}"
    if names & {"HydraException", "OmegaConfBaseException"} or type(error) is ValueError:
        return explain(error, ()) or one_line(message) or one_line(error.__cause__)
    return explain(error, ())


def _unreadable_override(override: str, message: str) -> str:
    if "=" not in override:
        return f"{override!r} is not understood, write key=value or group=option"
    reason = one_line(message.removeprefix(f"Error parsing override '{override}'").split("\n^")[0])
    reason = re.sub(r" expecting .*", "", reason)  # a list of the grammar's tokens
    if reason.startswith("LexerNoViableAltException"):
        reason = "a character that has no meaning there"
    return f"{override!r} cannot be read ({reason}); quote values with special characters: \"key='a b, c'\""


def _missing_config(error: Exception, overrides: Sequence[str], options: Callable[[str], Sequence[str]]) -> str:
    path = str(getattr(error, "missing_cfg_file", None) or "")
    if not path:
        return one_line(error)
    group, _, name = path.partition("/")
    for override in overrides:  # as the user wrote it: a group may be a/b, and an option of the group a may be b/c
        key, _, value = override.lstrip("+").partition("=")
        if f"{key.partition('@')[0]}/{value}" == path:
            group, name = key.partition("@")[0], value
    if not name:
        known = [o for o in options("") if "/" not in o and not o.startswith("_")]
        return f"--config-name {path!r} does not exist, choose one of {', '.join(known)}{_hint(path, known)}"
    known = list(options(group))
    if not known:
        return f"{group}={name!r}: there is no config group {group!r}"
    hint = ""
    if group == "hydra/launcher":
        hint = "; joblib and slurm need pip install 'effkit[launchers]', those of Ray pip install 'effkit[ray]'"
    try:
        choose(group, name, known)
    except UserError as mistake:
        return f"{mistake}{hint}"
    return one_line(str(error).split("Config search path:")[0])


def _unused_group(group: str, program: str, overrides: Sequence[str], compose: Callable[[Sequence[str]], Any]) -> str:
    config = _without(group, overrides, compose)
    used = [] if config is None else [g for g in config.hydra.runtime.choices if not g.startswith("hydra/")]
    listed = f", it uses {', '.join(sorted(used))}" if used else ""
    return f"{program} does not use the group {group!r}{listed} (+{group}=... adds it)"


def _unknown_key(key: str, program: str, overrides: Sequence[str], compose: Callable[[Sequence[str]], Any]) -> str:
    """Name the keys that exist where the unknown one was looked for, and the one that was probably meant."""
    config = _without(key, overrides, compose)
    if config is None:
        return f"{program} has no key {key!r}"
    from omegaconf import DictConfig

    parent, node = "", config
    *path, last = key.split(".")
    for depth, name in enumerate(path):
        child = node._get_node(name) if isinstance(node, DictConfig) and name in node else None
        if not isinstance(child, DictConfig) or child._is_none() or child._is_missing():
            path, last = path[:depth], name
            break
        parent, node = f"{parent}{name}.", child
    known = [f"{parent}{k!s}" for k in node if parent or k != "hydra"] if isinstance(node, DictConfig) else []
    if not parent:  # at the root a group is written like a key, and may have no key of its own
        known += [g for g in config.hydra.runtime.choices if not g.startswith("hydra/") and g not in known]
    wanted = f"{parent}{last}"
    hint = nearest(wanted, known)
    end = key.split(".")[-1]
    elsewhere = [k for k in _leaves(config) if k.split(".")[-1] == end]  # max_epochs for trainer.max_epochs
    if elsewhere and (hint is None or not parent):
        hint = nearest(key, elsewhere) or elsewhere[0]
    listed = known and (hint is None or len(known) <= _MANY)
    keys = f", choose one of {', '.join(sorted(known))}" if listed else ""
    return f"{program} has no key {key!r}{keys}" + (f"; did you mean {hint!r}?" if hint else "")


def _leaves(config: Any, prefix: str = "") -> list[str]:
    from omegaconf import DictConfig

    found = []
    for key in config:
        if not prefix and key == "hydra":
            continue
        child = config._get_node(key)
        found.append(f"{prefix}{key}")
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            found += _leaves(child, f"{prefix}{key}.")
    return found


def _without(key: str, overrides: Sequence[str], compose: Callable[[Sequence[str]], Any]) -> Any:
    """Compose without the overrides of ``key``; `None` if the rest is wrong too."""
    rest = [o for o in overrides if o.split("=")[0].lstrip("+~") != key]
    for attempt in (rest, [o for o in rest if o.startswith("hydra/")], []):
        try:
            return compose(attempt)
        except Exception:  # a second mistake on the same command line: its turn comes when this one is mended
            continue
    return None


def _not_an_option(overrides: Sequence[str], options: Callable[[str], Sequence[str]]) -> str | None:
    for override in overrides:
        group, equals, name = override.lstrip("+~").partition("=")
        known = sorted(options(group)) if equals else []
        if known and name not in known:
            return f"{group}={name} is not known, choose one of {', '.join(known)}{_hint(name, known)}"
    return None


def _hint(name: str, known: Sequence[str]) -> str:
    hint = nearest(name, known)
    return f"; did you mean {hint!r}?" if hint else ""
