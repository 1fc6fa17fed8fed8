"""Command lines: ``PACKAGE COMMAND group=option key=value`` on Hydra, which has no commands of its own.

An `App` is a console script. Its first word picks a command, which is a function of one config and names a primary
config; Hydra gets all other words. What a command returns is printed as tables or as one JSON document
(``format=json``); what the user did wrong is printed as one line (exit code 2). ``--multirun``, launchers, Lightning's
distributed strategies and both together work as they would without commands.

This module and what it imports at the top stay light: help and completion must answer at once, without torch or Hydra.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from effkit import _completion, _help
from effkit._explain import debugging, explain
from effkit._job import RUNNING
from effkit._process import Signals, die_with_first_rank, is_main_rank, log_handlers_restored, stop_signals
from effkit.errors import UserError, nearest

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["App", "Command", "build", "compose", "run_dir"]

Task = TypeVar("Task", bound=Callable[..., Any])

# What a config may name in `_target_`; the package of the running command is added.
BUILDABLE = ("effkit.", "torch.nn.", "torch.optim.", "torch.utils.data.", "torchvision.", "timm.", "lightning.")


@dataclass(frozen=True)
class Command:
    """A function of one config, the primary config it starts from, and the key that takes words without ``=``."""

    name: str
    task: Callable[[Any], Any]
    config_name: str
    positional: str | None

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (self.task.__doc__ or "").strip().split("\n")[0]


class App:
    """A console script made of commands.

    Args:
        prog: The script's name, as the user types it.
        config_module: Package that holds the primary configs, one YAML file per command.
        summary: One line for ``--help``.

    Example:
        >>> app = App("tnt-vit", "tnt_vit.configs", summary="Transformer in Transformer.")
        >>> @app.command("summary")
        ... def summary(cfg):
        ...     '''Params and MACs per variant.'''
        >>> app.commands["summary"].summary
        'Params and MACs per variant.'
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

    def command(self, name: str, *, config: str | None = None, positional: str | None = None) -> Callable[[Task], Task]:
        """Register a function as a command; the function stays as it is.

        Args:
            name: The word the user types.
            config: Primary config, by default the name with ``_`` for ``-``.
            positional: Key that gets the words without ``=`` as a list: ``a.jpg b.jpg`` is ``images=[a.jpg,b.jpg]``.
        """
        assert name not in self.commands, f"{self.prog} has two commands {name!r}"

        def register(task: Task) -> Task:
            self.commands[name] = Command(name, task, config or name.replace("-", "_"), positional)
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

    def compose(self, command: str, overrides: Sequence[str] = ()) -> DictConfig:
        """Compose a command's config without running it, for tests and notebooks.

        Raises:
            UserError: If an override does not fit.
        """
        found = self.find(command)
        return compose(self.prog, self.config_module, found.name, overrides, config=found.config_name)

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Run the program.

        Args:
            argv: The words after the program's name. If not given, those of this process, which then ends with the exit
                code (so ``main()`` and ``sys.exit(main())`` do the same).

        Returns:
            0 all is well, 1 a check did not hold or the program crashed, 2 the user made a mistake, 130 Ctrl-C.
        """
        words = sys.argv[1:] if argv is None else list(argv)
        if argv is None:
            die_with_first_rank()
        with stop_signals() as signals, log_handlers_restored():
            code = self._guarded(words, signals, ends_process=argv is None)
        if argv is None:
            raise SystemExit(code)
        return code

    def _guarded(self, words: list[str], signals: Signals, ends_process: bool) -> int:
        """Run, and turn whatever is raised into an exit code and a message."""
        try:
            if sys.stdout is None:  # started with a closed standard output
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            code = self._dispatch(words, ends_process)
            sys.stdout.flush()
            return code
        except KeyboardInterrupt:
            return self._interrupted(signals)
        except SystemExit as stop:
            if signals.received is not None:
                return self._interrupted(signals)
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BrokenPipeError:  # `tnt-vit summary | head`: the reader has seen enough
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains when it flushes at exit
            return 141
        except Exception as error:
            if debugging():
                raise
            line = explain(error, ("effkit", self.package))
            if line is None:
                traceback.print_exc()
                return 1
            self.complain(line)
            return 2

    def _interrupted(self, signals: Signals) -> int:
        if is_main_rank():
            print(f"{self.prog}: interrupted", file=sys.stderr)
        return signals.exit_code

    def complain(self, line: str) -> None:
        """Print an error of the user; the other ranks of a distributed job made the same one and keep quiet."""
        if is_main_rank():
            print(f"{self.prog}: error: {line}", file=sys.stderr)

    def _dispatch(self, words: list[str], ends_process: bool) -> int:
        """Answer what needs no config, or hand over to a command."""
        if not words:
            print(_help.program(self), file=sys.stderr)
            return 2
        first, rest = words[0], words[1:]
        if first in ("-h", "--help", "help"):
            if first == "help" and rest:
                return self._dispatch([rest[0], "--help"], ends_process)
            print(_help.program(self))
        elif first == "--version":
            print(f"{self.prog} {_help.version_of(self.prog)}")
        elif first == "--completion":
            print(_completion.install_line(self.prog, rest[0] if rest else ""))
        elif first in ("-sc", "--shell-completion"):
            _completion.answer(self, rest)
        else:
            command = self.find(first)
            from effkit._launch import launch

            return launch(self, command, rest, ends_process)
        return 0


def compose(
    program: str, config_module: str, command: str, overrides: Sequence[str] = (), *, config: str | None = None
) -> DictConfig:
    """Compose a command's config without its `App`: for what stands below the command line, such as a paper's claim.

    Args:
        program: The script's name, for messages.
        config_module: Package that holds the primary configs.
        command: The command's name.
        overrides: As on the command line.
        config: Primary config, by default the name with ``_`` for ``-``.

    Raises:
        UserError: If an override does not fit.
    """
    from effkit import _launch

    return _launch.compose(program, config_module, command, config or command.replace("-", "_"), overrides)


def run_dir() -> Path:
    """The folder of the running job, where all it writes belongs. Commands that only report have none of their own.

    Raises:
        RuntimeError: If no command is running.
    """
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        raise RuntimeError("run_dir() is the folder of a running command, and no command is running")
    return Path(HydraConfig.get().runtime.output_dir)


def build(cfg: Any, *args: Any, allow: Sequence[str] = (), **kwargs: Any) -> Any:
    """Instantiate what a config names in ``_target_``, if it comes from a package that may be named there.

    The one place that instantiates: a config somebody sends you can build layers, data and callbacks, and call nothing
    else. Errors of the constructor come out as they were raised.

    Args:
        cfg: A config node with ``_target_``.
        *args: Positional arguments of the target.
        allow: Further prefixes of targets, e.g. ``"my_models."``.
        **kwargs: Keyword arguments of the target; they win over those in the config.

    Returns:
        The object.

    Raises:
        UserError: If a ``_target_`` is not allowed, does not exist, or does not take the arguments given.
    """
    from effkit._build import instantiate

    return instantiate(cfg, (*BUILDABLE, *(f"{package}." for package in RUNNING), *allow), args, kwargs)
