"""The commands train, distill and eval: what they do and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effkit.errors import UserError
from effkit.report import Report, Table
from kd_autoaug.training.build import Parts, build_data, build_everything, build_loss, build_student, set_up

__all__ = ["distill_report", "evaluate_report", "fit", "train_report"]


def fit(cfg: Mapping[str, Any], parts: Parts, folder: Path | None = None) -> dict[str, Any]:
    """Train, and write the network to ``model.safetensors`` in the run folder.

    Args:
        cfg: Composed config.
        parts: From :func:`kd_autoaug.training.build.build_everything`.
        folder: The run folder; the running command's if ``None``.

    Returns:
        What ``effkit.lightning.train`` returns, and ``weights``: the file.
    """
    from effkit.lightning import train
    from kd_autoaug.weights import save_weights

    metrics = train(cfg, parts.student, parts.data, module=parts.module, folder=folder)  # type: ignore[arg-type]
    weights = Path(metrics["folder"]) / "model.safetensors"
    save_weights(parts.student, weights)
    return {**metrics, "weights": str(weights)}


def train_report(cfg: Any) -> Report:
    """Train with cross-entropy, with or without label smoothing; no teacher."""
    set_up(cfg)
    weight = build_loss(cfg).weight
    if weight > 0:
        raise UserError(f"loss.weight={weight} needs a teacher: `train` has none, use `kd-autoaug distill`")
    parts = build_everything(cfg)
    return _report("train", cfg, parts, fit(cfg, parts))


def distill_report(cfg: Any) -> Report:
    """Train a student beside a frozen teacher that sees the same pictures, or from the cache of its answers."""
    set_up(cfg)
    parts = build_everything(cfg)
    return _report("distill", cfg, parts, fit(cfg, parts))


def evaluate_report(cfg: Any) -> Report:
    """Measure a network on the clean test pictures."""
    from effkit.lightning import evaluate
    from kd_autoaug.training.pictures import NormalisedNetwork

    set_up(cfg)
    data = build_data(cfg)
    model = build_student(cfg, data)
    metrics = evaluate(cfg, NormalisedNetwork(model, data.mean, data.std), data)  # type: ignore[arg-type]
    lines = [] if cfg["model"].get("weights") else ["random weights: give model.weights=PATH"]
    table = Table(
        f"{cfg['model']['name']} on {data.name}, test", ["metric", "value"], [[k, v] for k, v in metrics.items()]
    )
    return Report("kd-autoaug eval", [table], data=metrics, lines=lines)


def _report(command: str, cfg: Any, parts: Parts, metrics: dict[str, Any]) -> Report:
    best = metrics["best"] or {}
    rows = [[k, v] for k, v in metrics["final"].items()] + [[f"best: {k}", v] for k, v in best.items()]
    expected = cfg.get("expected") or {}
    if expected.get("top1") is not None:
        rows.append([f"published top1, {expected.get('source') or 'source not given'}", expected["top1"]])
    rows += [[k, metrics[k]] for k in ("epochs", "seconds", "images_per_second", "params", "device", "folder")]
    title = f"{cfg['model']['name']} on {parts.data.name}, policy {_name(cfg, 'policy')}, loss {_name(cfg, 'loss')}"
    if parts.teacher is not None:
        title += f", teacher {cfg['teacher']['name']}"
    lines = [f"{label}" for label in (expected.get("evidence") or [])]
    return Report(f"kd-autoaug {command}", [Table(title, ["metric", "value"], rows)], data=metrics,
                  files=[Path(metrics["weights"])], lines=lines)  # fmt: skip


def _name(cfg: Any, group: str) -> str:
    return str((cfg.get(group) or {}).get("name") or "none")
