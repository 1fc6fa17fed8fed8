"""A job that goes on with an earlier run works in that run's folder and keeps none of its own.

Hydra makes a folder for every job, with the config and a log file in it, before the job can say whose work it goes on
with.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

__all__ = ["Continued", "continue_in"]

_MARKS = ("checkpoints", "status.json", ".hydra")
_PROGRESS = ("metrics.csv", "metrics.json", "checkpoints/last.ckpt", "checkpoints/step.ckpt")


def continue_in(resume: Any, cwd: str | Path = ".") -> Path | None:
    """Return the run folder that ``resume=`` means, absolute; ``None`` if it names none (a loose ``.ckpt`` file).

    Args:
        resume: The value of the key.
        cwd: What relative paths are relative to.
    """
    if not resume or not isinstance(resume, str):
        return None
    path = Path(cwd, Path(resume).expanduser()).absolute()
    if path.is_file() and path.parent.name == "checkpoints":
        path = path.parent.parent
    return path if path.is_dir() and any((path / mark).exists() for mark in _MARKS) else None


class Continued:
    """The folder of the run that goes on, and what stood there before this job touched it.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._status = _read(folder / "status.json")
        self._progress = self._seen()

    @property
    def started(self) -> str | None:
        """When the run was started first."""
        with contextlib.suppress(ValueError, AttributeError):
            return json.loads(self._status or b"{}").get("started")
        return None

    def untouched(self) -> bool:
        """Whether no row, checkpoint or figure has been written since."""
        return self._seen() == self._progress

    def put_status_back(self) -> None:
        """An attempt that was refused says nothing about the run."""
        from effkit.atomic import atomic

        file = self.folder / "status.json"
        with contextlib.suppress(OSError):
            if self._status is None:
                file.unlink(missing_ok=True)
            else:
                with atomic(file) as temporary:
                    temporary.write_bytes(self._status)

    def take_over(self, made: Path, output_subdir: str | None, cwd: str | Path = ".") -> None:
        """Write the log on in the run's folder, and remove the folder that Hydra has just made.

        Args:
            made: The job's own folder; nothing is removed from it but what Hydra wrote there.
            output_subdir: Where Hydra keeps the config of the job, inside ``made``.
            cwd: Where the command was started; empty folders below it that led to ``made`` go as well.
        """
        if made.resolve() == self.folder.resolve():
            return
        logs = _move_logs(made, self.folder)
        if Path.cwd() == made.resolve():  # hydra.job.chdir=true
            os.chdir(self.folder)
        if output_subdir:
            for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
                (made / output_subdir / name).unlink(missing_ok=True)
        for log in logs:
            log.unlink(missing_ok=True)
        above = [parent for parent in made.parents if Path(cwd).absolute() in parent.parents]
        for folder in [*([made / output_subdir] if output_subdir else []), made, *above]:
            with contextlib.suppress(OSError):  # what holds something was there before, or is another job's
                folder.rmdir()

    def _seen(self) -> list[tuple[int, int] | None]:
        return [_stamp(self.folder / name) for name in _PROGRESS]


def _move_logs(made: Path, folder: Path) -> list[Path]:
    """Let log files below ``made`` go on below ``folder``; returns those left behind."""
    root, left = logging.getLogger(), []
    for index, handler in enumerate(root.handlers):
        if type(handler) is not logging.FileHandler or not Path(handler.baseFilename).is_relative_to(made.resolve()):
            continue
        old = Path(handler.baseFilename)
        new = folder / old.relative_to(made.resolve())
        handler.close()
        new.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError), open(old, "rb") as source, open(new, "ab") as target:
            shutil.copyfileobj(source, target)
        moved = logging.FileHandler(new, encoding=handler.encoding)
        moved.setLevel(handler.level)
        moved.setFormatter(handler.formatter)
        for kept in handler.filters:
            moved.addFilter(kept)
        root.handlers[index] = moved
        left.append(old)
    return left


def _read(file: Path) -> bytes | None:
    with contextlib.suppress(OSError):
        return file.read_bytes()
    return None


def _stamp(file: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = file.stat()
        return found.st_mtime_ns, found.st_ino
    return None
