"""What a composed config may name to be called: checked where it is composed, before anything is instantiated.

A config file that somebody sends is data. Hydra calls what its own node names (callbacks, launcher, sweeper) before a
command sees anything, and Python's logging what a logging config names; so these are looked at as the rest is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from effkit.cli.explain import one_line
from effkit.errors import UserError

__all__ = ["BUILDABLE", "check_config", "check_target", "children", "targets_of"]

# Classes that a config may name in `_target_`; those of the running command's package are added.
BUILDABLE = (
    "effkit.",
    *("torch.nn.", "torch.optim.", "torch.utils.data."),
    *("torchvision.models.", "torchvision.transforms."),
    *("timm.layers.", "timm.models.", "timm.optim.", "timm.scheduler."),
    *("lightning.pytorch.callbacks.", "lightning.pytorch.loggers."),
)
# In Hydra's own node: what Hydra brings, its plugins, and what the sweeper of one of them takes.
_CORE_PLUGINS = "hydra._internal.core_plugins."
_HYDRA = (_CORE_PLUGINS, "hydra.experimental.callbacks.", "hydra_plugins.", "optuna.samplers.", "optuna.pruners.")
_LOGGING = ("logging.", "colorlog.", "rich.logging.")
_LOGGING_NODES = ("hydra.hydra_logging.", "hydra.job_logging.")
_CALLED_BY_LOGGING = {"()", "class", "factory", "listener", "queue"}
# Variables that make processes started by a job load other code than they would.
_LOADS_CODE = re.compile(r"hydra\.job\.env_set\.(DYLD_\w*|LD_\w*|PATH|PYTHON\w*)")
_STREAMS = {"ext://sys.stdout", "ext://sys.stderr"}
# An interpolation without a value yet is one that Hydra fills in later. It may stay if only text can come of it: it
# starts with a plain reference (whose target is looked at in its own place) or with a resolver that returns text.
_TEXT_LATER = re.compile(r"\$\{(?:hydra:)?[^:{}$]*\}|\$\{(?:oc\.env|now|python_version):")
# What can only give text and calls no resolver (some keep what they gave: `now`), and what refers to another key: known
# without Hydra's grammar, which takes longer than all the rest.
_TEXT = re.compile(r"(?!\$)(?!.*\$\{[^}]*:)", re.DOTALL)
_REFERENCE = re.compile(r"\$\{(\w+(?:\.\w+)*)\}")
_DEEPEST, _MOST = 40, 100_000


def check_config(config: Any, package: str) -> None:
    """Refuse a composed config that names something to be called that may not be named there.

    What an interpolation gave is written in its place, so that it is what was looked at.

    Args:
        config: The composed config with the node ``hydra``.
        package: Top-level package of the command, whose classes may be named.

    Raises:
        UserError: Names the key, what it names and what would be allowed.
    """
    job, hydra = (*BUILDABLE, f"{package}."), (*_HYDRA, "effkit.", f"{package}.")
    for path, key, value in _leaves(config, keep=True):
        if _LOADS_CODE.fullmatch(path):
            raise UserError(f"{path} is not allowed, set {key} in the shell")
        in_logging = path.startswith(_LOGGING_NODES)
        if key == "_target_":
            if value is not None:
                check_target(path, value, hydra if path.startswith("hydra.") else job)
        elif in_logging and isinstance(value, str):
            if key in _CALLED_BY_LOGGING:
                check_target(path, value, (*_LOGGING, "effkit.", f"{package}."))
            elif value.startswith("ext://") and value not in _STREAMS:
                raise UserError(f"{path}={value!r} is not allowed, choose one of {', '.join(sorted(_STREAMS))}")


def targets_of(config: Any) -> dict[str, Any]:
    """What a node names in ``_target_``, at any depth: value by path."""
    return {path: value for path, key, value in _leaves(config, keep=False) if key == "_target_"}


def check_target(key: str, target: Any, allowed: Sequence[str]) -> None:
    """Refuse what is no class of the packages, and what is reached through one of them (``torch.nn.os.system``).

    Args:
        key: Where it stands in the config, for messages.
        target: The dotted name.
        allowed: Prefixes of the modules it may be defined in.

    Raises:
        UserError: If it may not be named, or does not exist.
    """
    listed = ", ".join(prefix.rstrip(".") for prefix in allowed)
    if not isinstance(target, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", target):
        raise UserError(f"{key}={target!r} is not allowed, targets come from {listed}")
    if not target.startswith(tuple(allowed)):
        raise UserError(f"{key}={target!r} is not allowed, targets come from {listed}")
    # Looking it up imports modules: none that runs when imported (`__main__`), and nothing a library keeps to itself.
    if private := [name for name in target.removeprefix(_CORE_PLUGINS).split(".") if name.startswith("_")]:
        raise UserError(f"{key}={target!r} is not allowed: {private[0]!r} is private")
    from hydra._internal.utils import _locate

    try:
        found = _locate(target)  # the object that Hydra would call
    except Exception as error:
        raise UserError(f"{key}={target!r} does not exist: {one_line(error)}") from error
    home = getattr(found, "__module__", None) or getattr(found, "__name__", None) or type(found).__module__
    if not f"{home}.".startswith(tuple(allowed)):
        raise UserError(f"{key}={target!r} is not allowed: it is defined in {home!r}, not in {listed}")
    if not isinstance(found, type):
        raise UserError(f"{key}={target!r} is not allowed: it is no class")


def _leaves(config: Any, keep: bool) -> Iterator[tuple[str, str, Any]]:
    """All values that are no containers: path, last key and value, interpolations filled in.

    Args:
        config: A config, or plain dictionaries and lists.
        keep: Whether to write in the config what an interpolation that may name something gave.
    """
    from omegaconf import Container, Node

    pending = [("", config)]
    for _ in range(_MOST):
        if not pending:
            return
        path, node = pending.pop()
        if path.count(".") > _DEEPEST:
            break
        for key, child in children(node):
            here = f"{path}{key}"
            if isinstance(child, Node):  # most are plain
                held = child.__dict__["_content" if isinstance(child, Container) else "_val"]
                if isinstance(held, dict | list) and isinstance(child, Container):
                    pending.append((f"{here}.", child))
                    continue
                if held is None or isinstance(held, bool | int | float) or (type(held) is str and "$" not in held):
                    yield here, str(key), None if held == "???" else held
                    continue
            value = _value(node, key, child, here, keep)
            if _is_container(value):
                pending.append((f"{here}.", value))
            else:
                yield here, str(key), value
    raise UserError(f"the config is nested without end: {path[:80]}...")


def children(node: Any) -> list[tuple[Any, Any]]:
    """Keys and values of a config, a dictionary or a list, interpolations as they are."""
    from omegaconf import DictConfig, ListConfig

    if isinstance(node, DictConfig):
        return [(key, node._get_node(key)) for key in node]
    if isinstance(node, ListConfig):
        return [(index, node._get_node(index)) for index in range(len(node))]
    return list(node.items()) if isinstance(node, dict) else list(enumerate(node))


def _is_container(value: Any) -> bool:
    from omegaconf import Container

    if isinstance(value, Container):
        return not (value._is_none() or value._is_missing() or value._is_interpolation())
    return isinstance(value, (dict, list, tuple))


def _referred(child: Any, text: str) -> Any:
    """The node that an interpolation refers to by its full key; `None` if it is no such plain case."""
    from omegaconf import DictConfig

    if (found := _REFERENCE.fullmatch(text)) is None:
        return None
    node = child._get_root()
    for part in found[1].split("."):
        if type(node) is not DictConfig or not isinstance(node.__dict__["_content"], dict):
            return None
        node = node.__dict__["_content"].get(part)
    return None if node is None or node._is_interpolation() else node


def _value(node: Any, key: Any, child: Any, path: str, keep: bool) -> Any:
    """The value of a child; an interpolation is filled in, and kept so where it may name something to be called."""
    from omegaconf import Node, flag_override
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(child, Node):
        return child
    if child._is_missing() or child._is_none():
        return None
    if not child._is_interpolation():
        return child if _is_container(child) else child._value()
    text = str(child._value())
    in_logging = path.startswith(_LOGGING_NODES)
    called = key == "_target_" or (key in _CALLED_BY_LOGGING and in_logging)
    if keep and key != "_target_" and key not in _CALLED_BY_LOGGING and not in_logging:  # its text is for nobody
        if _TEXT.match(text):
            return None
        if (there := _referred(child, text)) is not None:
            return there if _is_container(there) else None
    try:
        found = child._dereference_node()
    except OmegaConfBaseException as error:
        if called:
            raise UserError(f"{path}={text!r} has no value when the config is composed: write the name out") from error
        if text.startswith("${") and not _TEXT_LATER.match(text):
            raise
        return None
    container = _is_container(found)
    value = found if container else found._value()
    if keep and ((container and ":" in text) or key == "_target_" or key in _CALLED_BY_LOGGING):
        with flag_override(node, ["readonly", "struct"], [False, False]):
            node[key] = value
    return value
