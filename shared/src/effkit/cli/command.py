"""What a console script is made of: its commands by name. No Hydra, no torch: help must answer at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from effkit.cli.process import is_main_rank
from effkit.errors import UserError, nearest

__all__ = ["Command", "Program"]

Task = TypeVar("Task", bound=Callable[..., Any])


@dataclass(frozen=True)
class Command:
    """A function of one config.

    Args:
        name: The word the user types.
        task: The function.
        config_name: The primary config it starts from.
        positional: Key that takes words without ``=``.
        unread: Groups that are there for experiments only.
    """

    name: str
    task: Callable[[Any], Any]
    config_name: str
    positional: str | None = None
    unread: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (self.task.__doc__ or "").strip().split("\n")[0]


class Program:
    """A script's name, its configs and its commands; `effkit.cli.App` runs one.

    Args:
        prog: The script's name, as the user types it.
        config_module: Package that holds the primary configs, one YAML file per command.
        summary: One line for ``--help``.
    """

    def __init__(self, prog: str, config_module: str, summary: str = "") -> None:
        self.prog = prog
        self.config_module = config_module
        self.summary = summary
        self.commands: dict[str, Command] = {}

    @property
    def package(self) -> str:
        """Top-level package of the configs; its ``raise ValueError`` are messages to the user."""
        return self.config_module.split(".")[0]

    def command(
        self, name: str, *, config: str | None = None, positional: str | None = None, unread: Sequence[str] = ()
    ) -> Callable[[Task], Task]:
        """Register a function as a command; the function stays as it is.

        Args:
            name: The word the user types.
            config: Primary config, by default the name with ``_`` for ``-``.
            positional: Key that gets the words without ``=`` as a list: ``a.jpg b.jpg`` is ``images=[a.jpg,b.jpg]``.
            unread: Groups that the function does not read, but that experiments written for another command choose from
                (``optimizer`` of ``eval``). It does not get them, and on the command line they are refused.
        """
        assert name not in self.commands, f"{self.prog} has two commands {name!r}"

        def register(task: Task) -> Task:
            self.commands[name] = Command(name, task, config or name.replace("-", "_"), positional, tuple(unread))
            return task

        return register

    def find(self, name: str) -> Command:
        """Look a command up.

        Raises:
            UserError: If there is none of that name; names the nearest and all.
        """
        if name in self.commands:
            return self.commands[name]
        if name.startswith("-") or "=" in name:
            raise UserError(f"the command comes first, got {name!r}: {self.prog} COMMAND ..., see {self.prog} --help")
        hint = nearest(name, self.commands)
        raise UserError(
            f"unknown command {name!r}, choose one of {', '.join(self.commands)}"
            + (f"; did you mean {hint!r}?" if hint else "")
        )

    def complain(self, line: str) -> None:
        """Print an error of the user; the other ranks of a distributed job made the same one and keep quiet."""
        if is_main_rank():
            print(f"{self.prog}: error: {line}", file=sys.stderr)
