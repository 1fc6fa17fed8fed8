"""A run folder, opened: what was trained, on what, how its pictures were prepared, and where the weights are.

``run=RUN`` on a command line means all of that at once, so no group needs to be named beside it; a word that says
something else than the run is refused.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effkit.data.preprocessing import Preprocessing
from effkit.errors import UserError, choose
from effkit.report import write_json

if TYPE_CHECKING:
    from effkit.data.base import DataModule

__all__ = [
    "PICTURE_KEYS",
    "PREPROCESSING_FILE",
    "WEIGHTS_FILE",
    "Earlier",
    "Run",
    "config_of",
    "given_words",
    "load_preprocessing",
    "preprocessing_of",
    "refuse_words",
    "save_preprocessing",
]

PREPROCESSING_FILE = "preprocessing.json"
WEIGHTS_FILE = "model.safetensors"
_CHECKPOINTS = {"best": "checkpoints/best.ckpt", "last": "checkpoints/last.ckpt", "final": WEIGHTS_FILE}
PICTURE_KEYS = ("image_size", "in_chans", "crop_pct", "interpolation", "mean", "std")
"""Keys of the group ``data`` that a network's preprocessing decides."""

Earlier = Callable[[Mapping[str, Any]], Preprocessing]
"""What a package makes of the ``data`` config of a run from before runs kept their preprocessing."""


def save_preprocessing(folder: str | Path, preprocessing: Preprocessing) -> Path:
    """Write ``preprocessing.json`` into a run folder, whole or not at all."""
    return write_json(Path(folder) / PREPROCESSING_FILE, preprocessing.to_dict())


def load_preprocessing(path: str | Path) -> Preprocessing:
    """Read a ``preprocessing.json``.

    Args:
        path: The file, or the folder that holds it.

    Raises:
        UserError: If it is missing, broken, or was written by a later version of effkit.
    """
    file = Path(path) / PREPROCESSING_FILE if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise UserError(f"{file} does not exist: a run that was trained by this version of effkit has it")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is damaged: {' '.join(str(error).split())}") from error
    return Preprocessing.from_dict(value, str(file))


def preprocessing_of(weights: str | Path, earlier: Earlier | None = None) -> Preprocessing | None:
    """What a file of weights expects of pictures, as far as it tells.

    Args:
        weights: ``.safetensors`` with our metadata, a checkpoint of ours, or any file in a run folder or in a folder
            inside one.
        earlier: Tells it from the ``data`` config of a run that kept none.

    Returns:
        The preprocessing, or ``None`` if the file and its run do not say.

    Raises:
        UserError: If what it says is broken, or was written by a later version of effkit.
    """
    file = Path(weights).expanduser()
    if file.suffix == ".safetensors" and file.is_file():
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "pt") as opened:
                found = Preprocessing.from_metadata(opened.metadata(), str(file))
        except SafetensorError:  # whoever loads the weights says what is wrong with the file
            return None
        if found is not None:
            return found
    stored = _checkpoint(file).get("preprocessing")
    if stored:
        return Preprocessing.from_dict(stored, f"preprocessing of {file}")
    for folder in (file.parent, file.parent.parent):
        if (folder / PREPROCESSING_FILE).is_file():
            return load_preprocessing(folder)
    if earlier is not None and (data := config_of(file).get("data")):
        return earlier(data)
    return None


def config_of(weights: str | Path) -> dict[str, Any]:
    """Configuration of the training run that wrote a file of weights, as plain values.

    Args:
        weights: A checkpoint of ours, which holds its configuration, or any file in a run folder or in a folder inside
            one (``RUN/model.safetensors``, ``RUN/checkpoints/best.ckpt``).

    Returns:
        The configuration; empty if the file does not come from a run of ours.
    """
    file = Path(weights).expanduser()
    config = _checkpoint(file).get("config")
    if isinstance(config, dict) and config:
        return config
    for folder in (file.parent, file.parent.parent):
        if found := _yaml(folder / ".hydra" / "config.yaml", resolve=True):
            return found
    return {}


def _checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint of ours; empty if it is none. Mapped, not read: the tensors are not wanted here."""
    if file.suffix != ".ckpt" or not file.is_file():
        return {}
    import torch

    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def given_words() -> dict[str, Any]:
    """What was given on the command line of the running command: value by key (or group), without defaults."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if not HydraConfig.initialized():
        return {}
    parsed = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    return {o.key_or_group: None if o.is_delete() else o.value() for o in parsed}


def refuse_words(source: str, given: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Refuse words that say again what a run or a file says.

    Args:
        source: It, for the message: ``run='runs/first'``.
        given: Value by key, as :func:`given_words` returns it.
        keys: Groups and keys that it decides; what lies below a group is meant too.

    Raises:
        UserError: If one of them was given.
    """
    for word in given:
        if any(word == key or word.startswith(f"{key}.") for key in keys):
            raise UserError(f"{source} says what {word} is: leave {word}=... out")


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
        folder = Path(path).expanduser()
        _check_folder(folder, str(path))
        hydra = _yaml(folder / ".hydra" / "hydra.yaml").get("hydra") or {}
        sources = (hydra.get("runtime") or {}).get("config_sources") or []
        made_by = next((str(s.get("path")).split(".")[0] for s in sources if s.get("provider") == "main"), "")
        if package is not None and made_by and made_by != package:
            raise UserError(f"run={str(path)!r} is a run of {made_by}, not of {package}: give one of {package}'s")
        config = _yaml(folder / ".hydra" / "config.yaml", resolve=True) or _stored_config(folder)
        if not config:
            raise UserError(f"run={str(path)!r} has no record of its configuration (.hydra/config.yaml)")
        status = _status(folder)
        if earlier is not None and config.get("data") and not (folder / PREPROCESSING_FILE).is_file():
            preprocessing = earlier(config["data"])
        else:
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
        choose("weights", which, ["auto", *_CHECKPOINTS])
        for name in ("final", "last") if which == "auto" else (which,):
            if (self.folder / _CHECKPOINTS[name]).is_file():
                return self.folder / _CHECKPOINTS[name]
        there = [name for name, file in _CHECKPOINTS.items() if (self.folder / file).is_file()]
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


def _yaml(file: Path, *, resolve: bool = False) -> dict[str, Any]:
    if not file.is_file():
        return {}
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        found = OmegaConf.to_container(OmegaConf.load(file), resolve=resolve)
    except (OmegaConfBaseException, yaml.YAMLError, OSError, ValueError) as error:
        raise UserError(f"{file} is damaged: {' '.join(str(error).split())}") from error
    return {str(k): v for k, v in found.items()} if isinstance(found, dict) else {}


def _stored_config(folder: Path) -> dict[str, Any]:
    """The configuration that the checkpoints of a run made from Python hold."""
    for name in ("last", "best"):
        config = _checkpoint(folder / _CHECKPOINTS[name]).get("config")
        if isinstance(config, dict) and config:
            return config
    return {}


def _status(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
