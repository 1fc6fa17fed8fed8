"""Measure a network on the test split of a data set, and report it: what every ``eval`` command does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from torch import nn

from effkit.data.base import DataModule
from effkit.data.preprocessing import Preprocessing
from effkit.lightning.classifier import Classifier
from effkit.lightning.logging import quiet_lightning
from effkit.lightning.optim import plain_options
from effkit.lightning.ranks import together
from effkit.lightning.setup import build_trainer, device_name, own_settings, run_folder
from effkit.lightning.trainer import left_out
from effkit.report import Report, Table, write_json
from effkit.runs import save_preprocessing

__all__ = ["evaluate", "evaluation_report"]


def evaluate(
    cfg: Mapping[str, Any],
    model: nn.Module,
    data: DataModule,
    *,
    preprocessing: Preprocessing | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Measure a network on the test split.

    Args:
        cfg: Composed configuration; ``trainer``, ``device`` and ``precision`` are read, each may be missing.
        model: The network, with its weights.
        data: What to measure on.
        preprocessing: What the network expects of pictures, that of its run (``effkit.runs.Run.preprocessing``);
            ``None`` takes the data's own.
        folder: The run folder; the running command's if ``None``.

    Returns:
        ``test_loss``, ``test_top1`` and ``test_top5`` (percent), ``images``, ``seconds``, ``images_per_second``,
        ``params``, ``device``: also written to ``metrics.json``.
    """
    cfg = plain_options(cfg)
    folder = run_folder(folder)
    if preprocessing is not None:
        data.use(preprocessing)
    used: Preprocessing | None = getattr(data, "preprocessing", None)
    with quiet_lightning(), own_settings():
        trainer = build_trainer(
            {**(cfg.get("trainer") or {}), "max_epochs": 1},
            folder,
            device=cfg.get("device") or "auto",
            precision=cfg.get("precision") or "auto",
        )
        started = time.perf_counter()
        with together(trainer, None):
            module = Classifier(model, data.num_classes, preprocessing=used)
            trainer.test(module, datamodule=data, verbose=False)
        seconds = time.perf_counter() - started
    images = min(len(data.split("test")), _batches(trainer) * data.batch_size * trainer.world_size)
    metrics = {
        **{k: float(v) for k, v in trainer.callback_metrics.items()},
        "images": images,
        "seconds": seconds,
        "images_per_second": images / seconds,
        "params": sum(p.numel() for p in model.parameters()),
        "device": device_name(trainer),
        **left_out(data),
    }
    if trainer.is_global_zero:
        if used is not None:
            save_preprocessing(folder, getattr(data, "preprocessing", used))
        write_json(folder / "metrics.json", metrics)
    return metrics


def evaluation_report(
    command: str,
    cfg: Mapping[str, Any],
    model: nn.Module,
    data: DataModule,
    *,
    name: str,
    printed: float | None = None,
    beside: Sequence[Sequence[Any]] = (),
    lines: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
    folder: Path | None = None,
) -> Report:
    """Measure a network on the test split and report it.

    Args:
        command: Title of the report, e.g. ``tnt-vit eval``.
        cfg: As for :func:`evaluate`.
        model: The network, with its weights.
        data: What to measure on.
        name: What to call the network.
        printed: The paper's accuracy, to stand beside the measured figures.
        beside: Further rows of the table, name and value.
        lines: What the reader must know, e.g. that weights are random.
        preprocessing: As for :func:`evaluate`.
        folder: Likewise.

    Returns:
        A table; ``data`` is what :func:`evaluate` returns.
    """
    metrics = evaluate(cfg, model, data, preprocessing=preprocessing, folder=folder)
    rows = [[key, value] for key, value in metrics.items()]
    if printed is not None:
        rows.append(["paper's top1", printed])
    table = Table(f"{name} on {data.name}, test", ["metric", "value"], [*rows, *map(list, beside)])
    return Report(command, [table], data=metrics, lines=list(lines))


def _batches(trainer: Trainer) -> int:
    return int(sum(trainer.num_test_batches))
