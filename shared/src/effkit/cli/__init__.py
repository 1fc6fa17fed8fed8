"""Command lines: ``PACKAGE COMMAND group=option key=value`` on Hydra, which has no commands of its own.

An `App` is a console script. Its first word picks a command, which is a function of one config and names a primary
config; Hydra gets all other words. What a command returns is printed as tables or as one JSON document
(``format=json``); what the user did wrong is printed as one line (exit code 2). ``--multirun``, launchers, Lightning's
distributed strategies and both together work as they would without commands.

This package and what it imports at the top stay light: help and completion must answer at once, without torch or Hydra.
"""

from effkit.cli.app import App
from effkit.cli.command import Command
from effkit.cli.config import compose
from effkit.cli.folder import run_dir
from effkit.cli.instantiate import build

__all__ = ["App", "Command", "build", "compose", "run_dir"]
