"""A command's config without its console script, for tests, notebooks and what stands below the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["compose"]


def compose(
    program: str, config_module: str, command: str, overrides: Sequence[str] = (), *, config: str | None = None
) -> DictConfig:
    """Compose a command's config without its `App`: e.g. in a paper's claim.

    Args:
        program: The script's name, for messages.
        config_module: Package that holds the primary configs.
        command: The command's name.
        overrides: As on the command line.
        config: Primary config, by default the name with ``_`` for ``-``.

    Raises:
        UserError: If an override does not fit.
    """
    from effkit.cli.session import parse_flags, session, task_config

    flags = parse_flags(f"{program} {command}", overrides)
    with session(program, command, config_module, config or command.replace("-", "_"), flags) as hydra:
        return task_config(hydra.compose())
