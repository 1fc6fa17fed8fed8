"""Shell lines that a launcher runs before a job, from config files that somebody sent.

submitit writes ``setup``, ``srun_args`` and all other text of its node into a script for the cluster. What ships with
us and what stands on the command line is meant; what a file names that came from elsewhere is refused, as a
``_target_`` is (`effkit.cli.targets`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from effkit.cli.targets import children
from effkit.errors import UserError

__all__ = ["check_shell"]

_NAMES = ("setup", "python", "srun_args", "additional_parameters", "runtime_env", r"\w*_commands?")
_RUN = re.compile(rf"hydra\.launcher\.(.*\.)?({'|'.join(_NAMES)})(\..*)?")
_SHIPPED = ("pkg", "structured")
# Hydra puts the text of the first three into that of the launcher.
_NODES = ("hydra.job", "hydra.run", "hydra.sweep", "hydra.launcher")


def check_shell(config: Any) -> None:
    """Refuse text for a shell in the node ``hydra.launcher`` that neither ships with a package nor was typed.

    Args:
        config: The composed config with the node ``hydra``.

    Raises:
        UserError: Names the key and how to say the same.
    """
    sources = config.hydra.runtime.config_sources
    if not any(source.path for source in sources if source.schema not in _SHIPPED):
        return
    typed = _typed(config.hydra.overrides.hydra)
    shipped = dict(_leaves("hydra.launcher", _shipped(config)))
    for node in _NODES:
        for key, (text, value) in _leaves(node, config.hydra._get_node(node.partition(".")[2])):
            runs = _RUN.fullmatch(key) is not None or "\n" in value or "\r" in value
            if runs and text != typed.get(key) and (text, value) != shipped.get(key):
                raise UserError(
                    f"{key}={text!r} runs in a shell and comes from a config file: give it on the command line"
                )


def _shipped(config: Any) -> Any:
    """The chosen launcher's own config, where a package has one of that name."""
    from hydra._internal.config_repository import ConfigRepository
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl

    path = ConfigSearchPathImpl()
    for source in config.hydra.runtime.config_sources:
        if source.schema in _SHIPPED:
            path.append(source.provider, f"{source.schema}://{source.path}")
    found = ConfigRepository(path).load_config(f"hydra/launcher/{config.hydra.runtime.choices['hydra/launcher']}")
    return None if found is None else found.config


def _typed(words: Any) -> dict[str, str]:
    """What the command line says of Hydra's node, by full key."""
    from effkit.cli.overrides import parsed

    found: dict[str, str] = {}
    for override in parsed(words):
        if not override.is_delete() and not override.is_sweep_override():
            found |= {key: text for key, (text, _) in _leaves(override.key_or_group, override.value())}
    return found


def _leaves(path: str, node: Any, written: str | None = None) -> Iterator[tuple[str, tuple[str, str]]]:
    """All text in a node: full key, then how it is written and what it is.

    Args:
        path: The node's key.
        node: A node of a config, or plain values.
        written: The interpolation that led here: all below it is written so.
    """
    from omegaconf import Container, Node
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(node, Node) and node._is_interpolation():
        written = written or str(node._value())
        try:
            node = node._dereference_node()
        except OmegaConfBaseException:  # of what Hydra knows later: those texts are looked at themselves
            yield path, (written, "")
            return
    if isinstance(node, Container):
        if not (node._is_none() or node._is_missing()):
            for key, child in children(node):
                yield from _leaves(f"{path}.{key}", child, written)
    elif isinstance(node, dict | list):
        for key, child in children(node):
            yield from _leaves(f"{path}.{key}", child, written)
    else:
        value = node._value() if isinstance(node, Node) else node
        if value is not None and not isinstance(value, bool | int | float):
            yield path, (written or str(value), str(value))
