"""Going on with a training, with the settings it was begun with."""

from __future__ import annotations

from typing import Any

from effkit.errors import UserError
from effkit.report import Report
from effkit.runs import Run
from ws_nas.commands.build import plain
from ws_nas.commands.train import execute

__all__ = ["run"]


def run(cfg: Any) -> Report:
    """Do what ``ws-nas resume`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If the folder is none of a training, or there is nothing to go on from.
    """
    given = plain(cfg)
    opened = Run.open(given["run"], package="ws_nas")
    if "family" not in opened.config:
        raise UserError(
            f"run={given['run']!r} is no training of a family: its command was {opened.command or 'another'}"
        )
    return execute({**opened.config, "resume": given["resume"], "threads": given["threads"]}, "resume")
