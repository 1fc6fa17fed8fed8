"""Train a network from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from effkit.lightning import train
from effkit.report import Report
from shiftghost_sr.commands.parts import data_of, network_of, plain, set_up, trained_report
from shiftghost_sr.training.data import SRData
from shiftghost_sr.training.module import SRModule

__all__ = ["fit", "run"]


def fit(
    cfg: Any, model: nn.Module, data: SRData, *, teacher: nn.Module | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """Train a network as a config says.

    Args:
        cfg: Composed config of ``train`` or ``finetune``.
        model: The network; holds the trained weights afterwards.
        data: What on.
        teacher: Its dense parent.
        folder: The run folder; the running command's if not given.

    Returns:
        What ``effkit.lightning.train`` returns.
    """
    values: Mapping[str, Any] = plain(cfg)
    module = SRModule(
        model,
        loss=values["loss"],
        teacher=teacher,
        distillation=values.get("distillation", 0.0) if teacher is not None else 0.0,
        shift_lr=values["shift_lr"],
        shift_epochs=values["shift_epochs"],
        optimizer=values["optimizer"],
        scheduler=values["scheduler"],
        ema=values["ema"],
    )
    return train(values, model, data, module=module, folder=folder)


def run(cfg: Any) -> Report:
    """Do what ``shiftghost-sr train`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value cannot be used.
    """
    set_up(cfg)
    model = network_of(cfg)
    data = data_of(cfg, cfg.scale)
    metrics = fit(cfg, model, data)
    title = f"{cfg.model} x{cfg.scale}, ghost {cfg.ghost or 'none'}, on {data.name}"
    lines = ["a ghost network becomes fast by `deploy`, which `upscale` and `evaluate` do by themselves"]
    return trained_report("train", model, metrics, title, lines if cfg.ghost else [])
