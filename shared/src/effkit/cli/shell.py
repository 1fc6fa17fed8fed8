"""Shell lines that a launcher runs before a job, from config files that somebody sent.

submitit writes ``setup``, ``srun_args`` and all other text of its node into a script for the cluster. What ships with
us and what stands on the command line is meant; what a file names that came from elsewhere is refused, as a
``_target_`` is (`effkit.cli.targets`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from effkit.errors import UserError

__all__ = ["check_shell"]

_RUN = re.compile(r"(.*\.)?(setup|python|srun_args|additional_parameters|runtime_env|\w*_commands?)(\..*)?")
_SHIPPED = ("pkg", "structured")
# Nodes whose text Hydra puts into that of the launcher.
_NAMES = ("job", "run", "sweep")


def check_shell(config: Any, held: Any) -> None:
    """Refuse text for a shell in the node ``hydra.launcher`` that neither ships with a package nor was typed.

    Args:
        config: The composed config with the node ``hydra``.
        held: The config before the words of the command line.

    Raises:
        UserError: Names the key and how to say the same.
    """
    files = [source for source in config.hydra.runtime.config_sources if source.schema not in _SHIPPED]
    if not any(source.path for source in files):
        return
    shipped = dict(_texts(_shipped(config), "hydra.launcher"))
    for name in ("launcher", *_NAMES):
        node = f"hydra.{name}"
        before = dict(_texts(held.hydra.get(name), node))
        for key, text in _texts(config.hydra.get(name), node):
            runs = name == "launcher" and _RUN.fullmatch(key.removeprefix(f"{node}.")) is not None
            if (runs or _two_lines(config, key, text)) and before.get(key) == text and shipped.get(key) != text:
                raise UserError(
                    f"{key}={text!r} runs in a shell and comes from a config file: give it on the command line"
                )


def _two_lines(config: Any, key: str, text: str) -> bool:
    """Whether a text breaks a line of the script, by itself or by what it refers to."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        value = OmegaConf.select(config, key)
    except OmegaConfBaseException:  # of what Hydra knows later: those texts are looked at themselves
        value = None
    return any(end in f"{text}{value}" for end in "\n\r")


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


def _texts(node: Any, start: str) -> Iterator[tuple[str, str]]:
    """All that is not a number or nothing, by dotted key, interpolations as they are written."""
    from omegaconf import OmegaConf

    def walk(value: Any, path: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for key, child in value.items():
                yield from walk(child, f"{path}.{key}")
        elif isinstance(value, list):
            for index, child in enumerate(value):
                yield from walk(child, f"{path}.{index}")
        elif value is not None and not isinstance(value, bool | int | float):
            yield path, str(value)

    yield from walk(OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node, start)
