"""The training run that made a file of weights, as far as the file or its folder tells."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

__all__ = ["run_config", "run_data"]


def run_config(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Configuration of the training run that wrote a weights file.

    Args:
        path: A Lightning checkpoint of ours, which holds its configuration, or any file in a run folder or in a
            folder inside one (``RUN/model.safetensors``, ``RUN/checkpoints/best.ckpt``).

    Returns:
        The configuration as plain containers, or ``None`` if the file does not come from a run of ours.
    """
    file = Path(path).expanduser()
    if file.suffix == ".ckpt" and file.is_file():
        try:  # mapped, not read: the tensors are not wanted here
            config = torch.load(file, map_location="cpu", weights_only=True, mmap=True).get("config")
        except Exception:  # whoever loads the weights says what is wrong with the file
            return None
        if isinstance(config, dict) and config:
            return config
    for folder in (file.parent, file.parent.parent):
        stored = folder / ".hydra" / "config.yaml"
        if stored.is_file():
            config = OmegaConf.to_container(OmegaConf.load(stored), resolve=True)
            return config if isinstance(config, dict) else None  # type: ignore[return-value]
    return None


def run_data(pretrained: bool | str | os.PathLike[str] | None) -> dict[str, Any] | None:
    """The ``data`` config of the run that trained a model, if ``pretrained`` is a path that leads to one."""
    if pretrained is None or isinstance(pretrained, bool):
        return None
    return (run_config(pretrained) or {}).get("data")
