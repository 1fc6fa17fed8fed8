"""The texts of ``PROG --help`` and ``PROG COMMAND --help``."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effkit.cli.command import Command, Program
    from effkit.cli.session import Session

_FLAGS = """\
  -m, --multirun      one job for each combination of values: lr=1e-3,1e-4 seed=range(3)
  --config-dir DIR    look for configs in DIR as well: --config-dir mine experiment=mine
  --cfg job           print the config and stop (hydra: Hydra's own; --resolve: values filled in)
  --info              print where configs come from and stop"""


def program(app: Program) -> str:
    """All commands, one line each."""
    width = max((len(name) for name in app.commands), default=0)
    commands = [f"  {c.name:<{width}}  {c.summary}" for c in app.commands.values()]
    blocks = [
        f"Usage: {app.prog} COMMAND [group=option ...] [key=value ...]",
        app.summary,
        "\n".join(["Commands", *commands]),
        "More\n"
        f"  {app.prog} COMMAND --help      groups, options and keys of a command\n"
        f"  {app.prog} --completion SHELL  the line that switches tab completion on (bash, zsh, fish)\n"
        f"  {app.prog} --version           the installed version\n"
        f"  EFFKIT_DEBUG=1 {app.prog} ...  the traceback of an error",
    ]
    return "\n\n".join(block for block in blocks if block)


def version_of(prog: str) -> str:
    """Version of the distribution that installed a console script."""
    from importlib.metadata import entry_points

    for point in entry_points(group="console_scripts", name=prog):
        if point.dist is not None:
            return point.dist.version
    return "(not installed)"


def command(app: Program, command: Command, hydra: Session) -> str:
    """Config groups with their options, and the config with its keys and values."""
    from hydra.types import RunMode
    from omegaconf import OmegaConf, open_dict

    from effkit.cli.session import chosen_options, task_config

    config = hydra.compose(mode=RunMode.MULTIRUN)  # a group that must be given need not be, to read about it
    choices = {g: o for g, o in chosen_options(config).items() if g.split("/")[0] not in ("hydra", *command.unread)}
    groups = {g: options for g, options in hydra.groups().items() if g not in command.unread}
    words = f"[{command.positional.upper()} ...] " if command.positional else ""
    blocks = [
        f"Usage: {app.prog} {command.name} {words}[group=option ...] [key=value ...] [--multirun]",
        inspect.cleandoc(command.task.__doc__ or ""),
    ]
    used = {g: [f"*{o}" if o == choices[g] else o for o in hydra.loader.options(g)] for g in sorted(choices)}
    others = {f"+{g}": options for g, options in groups.items() if g not in choices}
    if used:
        blocks.append(f"Groups (group=option; * is chosen)\n{_columns(used)}")
    if used and others:  # a command without groups has no use for others
        blocks.append(f"Groups that can be added (+group=option)\n{_columns(others)}")
    shown = task_config(config)
    with open_dict(shown):
        for group in command.unread:
            shown.pop(group, None)
    yaml = OmegaConf.to_yaml(shown)
    blocks.append("Config (key=value, nested.key=value)\n" + textwrap.indent(yaml.rstrip(), "  "))
    blocks.append(f"Flags\n{_FLAGS}")
    return "\n\n".join(block for block in blocks if block)


def _columns(rows: dict[str, list[str]]) -> str:
    width = max(len(name) for name in rows)
    screen = max(shutil.get_terminal_size().columns, 60)
    lines = []
    for name, options in rows.items():
        text = textwrap.fill(
            "  ".join(options),
            width=screen,
            initial_indent=f"  {name:<{width}}  ",
            subsequent_indent=" " * (width + 4),
            break_on_hyphens=False,
            break_long_words=False,
        )
        lines.append(text or f"  {name}")
    return "\n".join(lines)
