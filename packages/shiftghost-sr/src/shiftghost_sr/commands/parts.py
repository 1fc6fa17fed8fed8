"""From a config to networks and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from effkit.arguments import check_arguments, input_file, renamed
from effkit.cli import run_dir
from effkit.device import resolve_device, resolve_precision, seed_everything, set_threads
from effkit.errors import UserError, choose
from effkit.report import Report, Table
from shiftghost_sr.models.files import MARK, model_from_state, save_model
from shiftghost_sr.models.zoo import MODELS, create_model
from shiftghost_sr.training.data import SRData

__all__ = [
    "data_of",
    "network_file",
    "network_of",
    "plain",
    "precision_of",
    "set_up",
    "size_of",
    "trained_report",
]

_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
_RUN_FILES = {"final": "model.safetensors", "best": "checkpoints/best.ckpt", "last": "checkpoints/last.ckpt"}


def plain(cfg: Any) -> dict[str, Any]:
    """A config, or a part of one, as plain lists and dictionaries."""
    values: Any = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else dict(cfg)
    return values


def set_up(cfg: Any) -> torch.device:
    """Set threads and seed of a command, and find its device."""
    set_threads(cfg.threads)
    seed_everything(cfg.seed)
    return resolve_device(cfg.device)


def precision_of(cfg: Any, device: torch.device) -> str:
    """What ``precision`` means on a device: ``fp32``, ``bf16`` or ``fp16``."""
    return _PRECISIONS[resolve_precision(cfg.precision, device)]


def network_of(cfg: Any) -> nn.Module:
    """The network that ``model``, ``scale``, ``ghost`` and ``size`` describe, at random weights.

    Raises:
        UserError: If a value is not allowed.
    """
    choose("model", cfg.model, MODELS)
    size = size_of(cfg)
    ghost = cfg.ghost if cfg.ghost is None or isinstance(cfg.ghost, str) else plain(cfg.ghost)
    with renamed({key: f"size.{key}" for key in size}):
        return create_model(cfg.model, cfg.scale, ghost=ghost, **size)


def size_of(cfg: Any) -> dict[str, Any]:
    """The keys of ``size`` that are not null; null is the model's own size."""
    return {key: value for key, value in plain(cfg.size).items() if value or value == 0}


def data_of(cfg: Any, scale: int) -> SRData:
    """The data of the group ``data`` for a scale."""
    options = {**cfg.data}
    check_arguments(SRData, options, "data.")
    return SRData(**options, scale=scale)


def network_file(cfg: Any) -> Path:
    """The file of weights that ``run`` or ``model`` names.

    Raises:
        UserError: If neither or both are given, or there is no such file.
    """
    if bool(cfg.run) == bool(cfg.model):
        raise UserError("give either run=RUN (a training run) or model=FILE (weights)")
    if cfg.model:
        return Path(input_file("model", cfg.model))
    choose("weights", cfg.weights, ["auto", *_RUN_FILES])
    folder = Path(cfg.run).expanduser()
    if not folder.is_dir():
        raise UserError(f"run={str(cfg.run)!r} is not a folder: give the folder of a training run")
    for which in ("final", "last") if cfg.weights == "auto" else (cfg.weights,):
        file = folder / _RUN_FILES[which]
        if file.is_file():
            return file if which == "final" else _of_checkpoint(file, which)
    what = "" if cfg.weights == "auto" else f" for weights={cfg.weights}"
    raise UserError(
        f"run={str(cfg.run)!r} has no file{what} yet: its first epoch has not ended, or it is no training run"
    )


def _of_checkpoint(file: Path, which: str) -> Path:
    """The network of a checkpoint as a file of weights in the running command's folder."""
    from effkit.lightning import load_checkpoint, network_state
    from shiftghost_sr.training.module import ARCHITECTURE

    mark = load_checkpoint(file).get(ARCHITECTURE)
    if mark is None:
        raise UserError(f"the checkpoint {str(file)!r} does not say what its network is: it is of no run of ours")
    model = model_from_state({**network_state(file), MARK: mark}, file)
    return save_model(model, run_dir() / f"{which}.safetensors")


def trained_report(command: str, model: nn.Module, metrics: dict[str, Any], title: str, lines: list[str]) -> Report:
    """Write the trained network into its run folder, and say how it came out.

    Args:
        command: ``train`` or ``finetune``.
        model: The network.
        metrics: From ``effkit.lightning.train``.
        title: Of the table.
        lines: Sentences for people.
    """
    file = save_model(model, Path(metrics["folder"]) / _RUN_FILES["final"])
    rows = [[key, value] for key, value in metrics["final"].items()]
    rows += [[f"best: {key}", value] for key, value in (metrics["best"] or {}).items()]
    rows += [[key, metrics[key]] for key in ("epochs", "seconds", "images_per_second", "params", "device", "folder")]
    table = Table(title, ["metric", "value"], rows)
    return Report(f"shiftghost-sr {command}", [table], data=metrics, files=[file], lines=lines)
