"""Going on with a search, or with the recording of a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from effkit.errors import UserError
from effkit.report import Report
from greedy_enlarge.commands.build import plain
from greedy_enlarge.commands.search import FOLDER, SETTINGS, execute, result_report
from greedy_enlarge.commands.table import SETTINGS as TABLE
from greedy_enlarge.commands.table import execute as execute_table

__all__ = ["read_settings", "run"]


def _is_table(run: Any) -> bool:
    return bool(run) and (Path(str(run)).expanduser() / TABLE).is_file()


def read_settings(run: Any, name: str = SETTINGS) -> tuple[Path, dict[str, Any]]:
    """Folder and settings of a search.

    Args:
        run: The run folder of ``greedy-enlarge search``.
        name: Of the file that holds the settings.

    Raises:
        UserError: If it is none.
    """
    if not run:
        raise UserError("run is not set: give the folder of a search, run=RUN")
    folder = Path(str(run)).expanduser()
    file = folder / name
    if not file.is_file() or (name == SETTINGS and not (folder / FOLDER).is_dir()):
        raise UserError(f"run={str(run)!r} is no folder of a search: it has no {SETTINGS} and {FOLDER}/")
    try:
        return folder, json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is damaged: {' '.join(str(error).split())}") from error


def run(cfg: Any) -> Report:
    """Do what ``greedy-enlarge resume`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If there is nothing to go on with, or another process has it.
    """
    given = plain(cfg)
    recording = _is_table(given["run"])
    folder, options = read_settings(given["run"], TABLE) if recording else read_settings(given["run"])
    for key in ("executor", "workers"):  # how fast, not what
        if given[key]:
            options[key] = given[key]
    if recording:
        return Report("greedy-enlarge resume", files=[execute_table(options, folder)])
    found, _ = execute(options, folder)
    return result_report("greedy-enlarge resume", found, folder, [])
