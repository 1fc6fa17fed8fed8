"""``kd-autoaug train``: training without a teacher, and what every training run ends with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effkit.errors import UserError
from effkit.report import Report, Table
from kd_autoaug.commands.build import build_loss, set_up
from kd_autoaug.commands.parts import Parts, build_everything
from kd_autoaug.commands.trained import expected_rows
from kd_autoaug.distillation.weights import save_weights

__all__ = ["fit", "run", "run_report"]


def fit(cfg: Mapping[str, Any], parts: Parts, folder: Path | None = None) -> dict[str, Any]:
    """Train, and write the network to ``model.safetensors`` in the run folder.

    Args:
        cfg: Composed config.
        parts: From :func:`kd_autoaug.commands.parts.build_everything`.
        folder: The run folder; the running command's if ``None``.

    Returns:
        What ``effkit.lightning.train`` returns, and ``weights``: the file.
    """
    from effkit.lightning import train

    metrics = train(cfg, parts.student, parts.data, module=parts.module, folder=folder)  # type: ignore[arg-type]
    weights = Path(metrics["folder"]) / "model.safetensors"
    save_weights(parts.student, weights, parts.data.preprocessing)
    return {**metrics, "weights": str(weights)}


def run(cfg: Any) -> Report:
    """Train with cross-entropy, with or without label smoothing; no teacher."""
    set_up(cfg)
    expected_rows(cfg)  # what cannot be shown is told before the work
    weight = build_loss(cfg).weight
    if weight > 0:
        raise UserError(f"loss.weight={weight} needs a teacher: `train` has none, use `kd-autoaug distill`")
    parts = build_everything(cfg)
    return run_report("train", cfg, parts, fit(cfg, parts))


def run_report(command: str, cfg: Any, parts: Parts, metrics: dict[str, Any]) -> Report:
    """What a finished run says: its metrics, and the published figure where the config names one.

    Args:
        command: ``"train"`` or ``"distill"``.
        cfg: Composed config.
        parts: What was trained.
        metrics: Of :func:`fit`.
    """
    best = metrics["best"] or {}
    rows = [[k, v] for k, v in metrics["final"].items()] + [[f"best: {k}", v] for k, v in best.items()]
    published, lines = expected_rows(cfg)
    rows += published
    rows += [[k, metrics[k]] for k in ("epochs", "seconds", "images_per_second", "params", "device", "folder")]
    title = f"{cfg['model']['name']} on {parts.data.name}, policy {_name(cfg, 'policy')}, loss {_name(cfg, 'loss')}"
    if parts.teacher is not None:
        title += f", teacher {cfg['teacher']['name']}"
    return Report(f"kd-autoaug {command}", [Table(title, ["metric", "value"], rows)], data=metrics,
                  files=[Path(metrics["weights"])], lines=lines)  # fmt: skip


def _name(cfg: Any, group: str) -> str:
    return str((cfg.get(group) or {}).get("name") or "none")
