"""Tab completion: the first word from our commands, the rest from Hydra.

The shell's script is Hydra's (``PROG -sc install=bash``). At every tab it runs ``PROG -sc query=bash`` with the line in
``COMP_LINE``; Hydra expects groups and keys right after the program's name, so the command is taken out of the line.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from effkit.errors import choose

if TYPE_CHECKING:
    from effkit.cli.command import Program

_INSTALL = {
    "bash": 'eval "$({prog} -sc install=bash)"',
    "zsh": 'autoload -Uz compinit bashcompinit && compinit && bashcompinit && eval "$({prog} -sc install=bash)"',
    "fish": "{prog} -sc install=fish | source",
}
_FLAGS = ("--help", "--version", "--completion")


def install_line(prog: str, shell: str) -> str:
    """The line for the shell's start-up file (``~/.bashrc``, ``~/.zshrc``, ``~/.config/fish/config.fish``)."""
    return _INSTALL[choose("--completion", shell, list(_INSTALL))].format(prog=prog)


def answer(app: Program, words: Sequence[str]) -> None:
    """Print the shell's script (``install=SHELL``, ``uninstall=SHELL``) or the candidates for ``COMP_LINE``."""
    query = next((w.partition("=")[2] for w in words if w.startswith("query=")), None)
    if query is None:
        _forward(app, next(iter(app.commands)), list(words))
        return
    line = os.environ.get("COMP_LINE", "")
    typed = line.split()[1:]
    if not typed or (len(typed) == 1 and not line.endswith(" ")):
        start = typed[0] if typed else ""
        names = [*app.commands, *(_FLAGS if start.startswith("-") else ())]
        print(("\n" if query == "fish" else " ").join(name for name in names if name.startswith(start)))
    elif typed[0] in app.commands:
        os.environ["COMP_LINE"] = " ".join([app.prog, *typed[1:]]) + (" " if line.endswith(" ") else "")
        # A half-typed flag makes the parser print its usage and stop: that is no candidate, and nobody wants to see it.
        with (
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stderr(nowhere),
            contextlib.suppress(Exception, SystemExit),
        ):
            _forward(app, typed[0], list(words))


def _forward(app: Program, command: str, words: list[str]) -> None:
    from effkit.cli.session import parse_flags, session

    chosen = app.commands[command]
    sys.argv[0] = app.prog  # Hydra names the script after it, also when the program runs as `python -m`
    with session(app.prog, command, app.config_module, chosen.config_name, parse_flags(app.prog, [])) as hydra:
        hydra.hydra.shell_completion(config_name=hydra.config_name, overrides=words)
