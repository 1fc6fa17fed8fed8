"""The console script itself: one word picks a command, and whatever is raised becomes an exit code and a message."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from effkit.cli import completion, help
from effkit.cli.command import Program
from effkit.cli.config import compose
from effkit.cli.explain import debugging, explain
from effkit.cli.process import end_with_starter, log_handlers_restored, stop_signals
from effkit.ranks import is_main_rank
from effkit.stopping import Stop

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["App"]


class App(Program):
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
            end_with_starter()
        with stop_signals() as signals, log_handlers_restored():
            code = self._guarded(words, signals, ends_process=argv is None)
        if argv is None:
            raise SystemExit(code)
        return code

    def _guarded(self, words: list[str], signals: Stop, ends_process: bool) -> int:
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

    def _interrupted(self, signals: Stop) -> int:
        if is_main_rank():
            print(f"{self.prog}: interrupted", file=sys.stderr)
        return signals.exit_code

    def _dispatch(self, words: list[str], ends_process: bool) -> int:
        """Answer what needs no config, or hand over to a command."""
        if not words:
            print(help.program(self), file=sys.stderr)
            return 2
        first, rest = words[0], words[1:]
        if first in ("-h", "--help", "help"):
            if first == "help" and rest:
                return self._dispatch([rest[0], "--help"], ends_process)
            print(help.program(self))
        elif first == "--version":
            print(f"{self.prog} {help.version_of(self.prog)}")
        elif first == "--completion":
            print(completion.install_line(self.prog, rest[0] if rest else ""))
        elif first in ("-sc", "--shell-completion"):
            completion.answer(self, rest)
        else:
            command = self.find(first)
            from effkit.cli.launch import launch

            return launch(self, command, rest, ends_process)
        return 0
