"""A run folder, opened."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effkit.arguments import named_path
from effkit.data.preprocessing import Preprocessing
from effkit.errors import UserError, choose
from effkit.runs.records import (
    CHECKPOINTS,
    PREPROCESSING_FILE,
    Earlier,
    load_preprocessing,
    read_yaml,
    stored_config,
)
from effkit.runs.words import PICTURE_KEYS, refuse_words

if TYPE_CHECKING:
    from effkit.data.base import DataModule

__all__ = ["Run"]


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        folder: The folder.
        config: The composed configuration of the run, as plain values.
        preprocessing: How its pictures were prepared, with the class names.
        package: Import name of the package whose command made it; empty if it was made from Python.
        command: The command; empty likewise.
        status: ``finished``, ``running``, ``failed``, ``interrupted``; ``unknown`` if nothing says.
    """

    folder: Path
    config: dict[str, Any]
    preprocessing: Preprocessing
    package: str = ""
    command: str = ""
    status: str = "unknown"

    @classmethod
    def open(cls, path: str | Path, *, package: str | None = None, earlier: Earlier | None = None) -> Run:
        """Open a finished or running run.

        Args:
            path: Its folder.
            package: Import name of the package that asks; a run of another one is refused.
            earlier: As for :func:`preprocessing_of`.

        Raises:
            UserError: If it is no run folder, a record in it is missing or broken, or it is of another package.
        """
        folder = Path(named_path("run", path)).expanduser()
        _check_folder(folder, str(path))
        hydra = read_yaml(folder / ".hydra" / "hydra.yaml").get("hydra") or {}
        sources = (hydra.get("runtime") or {}).get("config_sources") or []
        made_by = next((str(s.get("path")).split(".")[0] for s in sources if s.get("provider") == "main"), "")
        if package is not None and made_by and made_by != package:
            raise UserError(f"run={str(path)!r} is a run of {made_by}, not of {package}: give one of {package}'s")
        config = read_yaml(folder / ".hydra" / "config.yaml", resolve=True) or stored_config(folder)
        if not config:
            raise UserError(f"run={str(path)!r} has no record of its configuration (.hydra/config.yaml)")
        status = _status(folder)
        if earlier is not None and config.get("data") and not (folder / PREPROCESSING_FILE).is_file():
            preprocessing = earlier(config["data"])
        else:
            _check_begun(folder, str(path), str(status.get("status") or ""))
            preprocessing = load_preprocessing(folder)
        return cls(
            folder,
            config,
            preprocessing,
            package=made_by,
            command=str(status.get("command") or ""),
            status=str(status.get("status") or "unknown"),
        )

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the logits."""
        return list(self.preprocessing.class_names)

    def weights(self, which: str = "auto") -> Path:
        """Find a file of the run's weights.

        Args:
            which: ``"final"`` (``model.safetensors``, of a finished run), ``"best"`` or ``"last"`` (checkpoints), or
                ``"auto"``: final, else last.

        Raises:
            UserError: If there is no such file yet.
        """
        choose("weights", which, ["auto", *CHECKPOINTS])
        for name in ("final", "last") if which == "auto" else (which,):
            if (self.folder / CHECKPOINTS[name]).is_file():
                return self.folder / CHECKPOINTS[name]
        there = [name for name, file in CHECKPOINTS.items() if (self.folder / file).is_file()]
        why = f"it has {', '.join(there)}" if there else "its first epoch has not ended"
        raise UserError(f"run={str(self.folder)!r} has no {'' if which == 'auto' else which + ' '}weights yet: {why}")

    def refuse(self, given: Mapping[str, Any], keys: Sequence[str] = ("model", "experiment")) -> None:
        """Refuse words that say again what the run says.

        Args:
            given: Value by key, as :func:`given_words` returns it.
            keys: Groups and keys that the run decides; what lies below a group is meant too.

        Raises:
            UserError: If one of them was given.
        """
        refuse_words(f"run={str(self.folder)!r}", given, keys)

    def open_data(self, data: Mapping[str, Any], given: Mapping[str, Any]) -> DataModule:
        """Build the data that a command measures on, with pictures prepared as in the run.

        Args:
            data: The ``data`` group of the command's config.
            given: As for :meth:`refuse`: without ``data=...`` the run's own data set is taken, with the keys given
                (``data.root``, ``data.batch_size``...) on top.

        Raises:
            UserError: If a key given contradicts the run, or the data set has other classes.
        """
        from effkit.data import create_data

        changed = {k.removeprefix("data."): v for k, v in given.items() if k.startswith("data.")}
        self.refuse({f"data.{k}": v for k, v in changed.items()}, [f"data.{k}" for k in PICTURE_KEYS])
        options = dict(data) if "data" in given else {**self.config["data"], **changed}
        if options["name"] != self.config["data"]["name"]:  # its own defaults; what the run says comes right after
            options = {k: v for k, v in options.items() if k not in PICTURE_KEYS}
        found = create_data(**options)
        found.use(self.preprocessing)
        return found


def _check_folder(folder: Path, given: str) -> None:
    if not folder.exists():
        raise UserError(f"run={given!r} does not exist: give the folder of a run")
    if not folder.is_dir():
        raise UserError(f"run={given!r} is a file: give the folder of the run, e.g. run=runs/train/NAME")
    if (folder / "multirun.yaml").is_file():
        jobs = sorted(p.name for p in folder.iterdir() if (p / ".hydra").is_dir())
        raise UserError(
            f"run={given!r} is a sweep of several runs: give one of them, {', '.join(jobs[:5]) or 'none yet'}"
        )
    marks = (".hydra/config.yaml", "status.json", "checkpoints", PREPROCESSING_FILE)
    if not any((folder / mark).exists() for mark in marks):
        raise UserError(f"run={given!r} is no run folder: it has none of {', '.join(marks)}")


def _check_begun(folder: Path, given: str, status: str) -> None:
    """Say of a run that has nothing to show why, before a file is missed that only we know."""
    if (folder / PREPROCESSING_FILE).exists() or any((folder / file).is_file() for file in CHECKPOINTS.values()):
        return
    if status == "failed":
        raise UserError(f"run={given!r} failed before it began to train: its log says why")
    if status in ("interrupted", "running"):  # a command that goes on with it has written "running" already
        raise UserError(
            f"run={given!r} holds nothing yet: it was stopped before it began to train (then give its command once "
            "more), or has just been started"
        )


def _status(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
