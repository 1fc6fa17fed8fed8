"""Where a run may write: a folder of its own, which no other run holds and no earlier one has filled."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from effkit.errors import UserError, written
from effkit.lock import locked
from effkit.outputs import check_output_folder

__all__ = ["check_folder", "check_sweep", "held"]

_RESULTS = ("metrics.json", "checkpoints/last.ckpt", "checkpoints/step.ckpt")


def check_folder(folder: Any, config: Any, key: str = "hydra.run.dir") -> None:
    """Refuse the folder of an earlier run with results, unless it is resumed or to be overwritten.

    Args:
        folder: The value of the key.
        config: The composed config.
        key: What names the folder on the command line.

    Raises:
        UserError: Says how to go on with that run, or over it.
    """
    if not isinstance(config.get("overwrite", False), bool):
        raise UserError(f"overwrite={written(config.overwrite)} must be true or false")
    if folder in (None, ""):
        raise UserError(f"{key}= is empty: give a folder, or leave {key}= out")
    path = check_output_folder(key, str(folder))
    if config.get("overwrite") or not _filled(path):
        return
    resumed = resumed_folder(config)
    if resumed is not None and resumed.resolve() == path.resolve():
        return
    goes_on = f"resume={folder} goes on with it, " if "resume" in config else ""
    raise UserError(f"{key}={str(folder)!r} holds a run already: {goes_on}overwrite=true writes over it")


def check_sweep(config: Any) -> None:
    """Refuse a sweep whose jobs would write into each other's folders.

    Raises:
        UserError: If the folder is empty, or the same for all jobs.
    """
    from omegaconf import OmegaConf

    if config.hydra.sweep.dir in (None, ""):
        raise UserError("hydra.sweep.dir= is empty: give a folder, or leave hydra.sweep.dir= out")
    given: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    if "${" not in str(given["subdir"]):
        raise UserError(
            f"hydra.sweep.subdir={given['subdir']!r} is one folder for all jobs: leave it out, or tell the jobs apart, "
            "'hydra.sweep.subdir=${hydra.job.num}'"
        )


@contextlib.contextmanager
def held(folder: Path, resumed: Path | None = None) -> Iterator[None]:
    """Hold the folder that a job writes into inside the block.

    Args:
        folder: The job's own.
        resumed: That of the run it goes on with, which it writes into instead.

    Raises:
        UserError: If a run that lives holds it; names its host and process.
    """
    with locked(resumed or folder, _say, "hydra.run.dir" if resumed is None else "resume"):
        yield


def resumed_folder(config: Any) -> Path | None:
    """The run folder that ``resume=`` names, by itself or by a checkpoint in it; `None` if there is none."""
    resume = config.get("resume")
    if not isinstance(resume, str) or not resume:
        return None
    path = Path(resume).expanduser()
    if path.is_file() and path.parent.name == "checkpoints":
        path = path.absolute().parent.parent
    return path if path.is_dir() else None


def _filled(folder: Path) -> bool:
    if any((folder / name).is_file() for name in _RESULTS):
        return True
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return bool(json.loads((folder / "status.json").read_text(encoding="utf-8")).get("status") == "finished")
    return False


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
