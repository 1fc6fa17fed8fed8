"""Train or fine-tune a TNT and keep its weights beside the run's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from effkit.lightning import train
from effkit.report import Report, Table
from effkit.runs import WEIGHTS_FILE
from tnt_vit.checkpoints.weights import save_checkpoint
from tnt_vit.commands.build import build_data_and_model, set_up

__all__ = ["run"]


def run(cfg: Any) -> Report:
    """Do what ``tnt-vit train`` does.

    Args:
        cfg: The composed config.

    Returns:
        The run's figures and ``model.safetensors`` in its folder.

    Raises:
        ValueError: If data, model and recipe do not fit together.
    """
    set_up(cfg)
    data, model = build_data_and_model(cfg, fresh_head=True)
    metrics = train(cfg, model, data)
    weights = save_checkpoint(model, Path(metrics["folder"]) / WEIGHTS_FILE, preprocessing=data.preprocessing)
    table = Table(f"{cfg.model.name} on {data.name}", ["metric", "value"], _rows(metrics, cfg.expected.top1))
    return Report("tnt-vit train", [table], data=metrics, files=[weights])


def _rows(metrics: dict[str, Any], expected: float | None) -> list[list[Any]]:
    rows = [[k, v] for k, v in metrics["final"].items()]
    best = metrics["best"]
    rows += [[f"best: {k}", v] for k, v in best.items()] if isinstance(best, dict) else [["best epoch", best]]
    rows += [["paper's top1", expected]] if expected is not None else []
    return rows + [[k, metrics[k]] for k in ("epochs", "seconds", "images_per_second", "params", "device", "folder")]
