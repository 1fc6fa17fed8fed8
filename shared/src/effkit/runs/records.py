"""What a run folder says: its preprocessing, its configuration, its files of weights."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from effkit.data.preprocessing import Preprocessing
from effkit.errors import UserError
from effkit.report import write_json

__all__ = [
    "CHECKPOINTS",
    "PREPROCESSING_FILE",
    "WEIGHTS_FILE",
    "Earlier",
    "config_of",
    "load_preprocessing",
    "preprocessing_of",
    "read_stored",
    "read_yaml",
    "save_preprocessing",
    "stored_config",
]

PREPROCESSING_FILE = "preprocessing.json"


WEIGHTS_FILE = "model.safetensors"


CHECKPOINTS = {"best": "checkpoints/best.ckpt", "last": "checkpoints/last.ckpt", "final": WEIGHTS_FILE}


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
    stored = read_stored(file).get("preprocessing")
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
    config = read_stored(file).get("config")
    if isinstance(config, dict) and config:
        return config
    for folder in (file.parent, file.parent.parent):
        if found := read_yaml(folder / ".hydra" / "config.yaml", resolve=True):
            return found
    return {}


def read_stored(file: Path) -> dict[str, Any]:
    """A checkpoint of ours; empty if it is none. Mapped, not read: the tensors are not wanted here."""
    if file.suffix != ".ckpt" or not file.is_file():
        return {}
    import torch

    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def read_yaml(file: Path, *, resolve: bool = False) -> dict[str, Any]:
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


def stored_config(folder: Path) -> dict[str, Any]:
    """The configuration that the checkpoints of a run made from Python hold."""
    for name in ("last", "best"):
        config = read_stored(folder / CHECKPOINTS[name]).get("config")
        if isinstance(config, dict) and config:
            return config
    return {}
