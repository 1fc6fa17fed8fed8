"""Train or fine-tune, and keep the weights (whole, and the paths alone) beside the run's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from augshortcut.checkpoints.files import save_checkpoint, save_paths
from augshortcut.commands.build import build_data_and_model, set_up
from augshortcut.injection.augment import config_of, freeze_base
from augshortcut.injection.rules import path_parameters
from effkit.errors import choose
from effkit.lightning import train
from effkit.report import Report, Table
from effkit.runs import WEIGHTS_FILE

__all__ = ["PATHS_FILE", "run"]

PATHS_FILE = "paths.safetensors"


def run(cfg: Any) -> Report:
    """Do what ``augshortcut train`` does.

    Args:
        cfg: The composed config.

    Returns:
        The run's figures, ``model.safetensors`` and ``paths.safetensors`` in its folder.

    Raises:
        ValueError: If data, model and recipe do not fit together.
    """
    set_up(cfg)
    choose("learn", cfg.learn, ["all", "paths", "paths_and_head"])
    data, model = build_data_and_model(cfg, fresh_head=True)
    head: Any = getattr(model, "get_classifier", lambda: None)()
    if cfg.learn != "all":
        freeze_base(model)
    if cfg.learn == "paths_and_head" and head is not None:
        head.requires_grad_(True)
    metrics = train(cfg, model, data)
    folder = Path(metrics["folder"])
    files = [save_checkpoint(model, folder / WEIGHTS_FILE, preprocessing=data.preprocessing)]
    if config_of(model) is not None:
        beside = [f"{n}." for n, m in model.named_modules() if m is head and n] if cfg.learn == "paths_and_head" else []
        files.append(save_paths(model, folder / PATHS_FILE, beside=beside))
    added = sum(p.numel() for p in path_parameters(model).values())
    rows = [[k, v] for k, v in metrics["final"].items()]
    best = metrics["best"]
    rows += [[f"best: {k}", v] for k, v in best.items()] if isinstance(best, dict) else [["best epoch", best]]
    rows += [["paper's top1", cfg.expected.top1]] if cfg.expected.top1 is not None else []
    rows += [["params of paths", added]]
    rows += [[k, metrics[k]] for k in ("epochs", "seconds", "images_per_second", "params", "device", "folder")]
    table = Table(f"{cfg.model.name} on {data.name}", ["metric", "value"], rows)
    return Report("augshortcut train", [table], data={**metrics, "path_params": added}, files=files)
