"""Measure a trained TNT on the test split of a data set."""

from __future__ import annotations

from typing import Any

from effkit.lightning import evaluate
from effkit.report import Report, Table
from tnt_vit.commands.build import build_data_and_model, set_up

__all__ = ["run"]


def run(cfg: Any) -> Report:
    """Do what ``tnt-vit eval`` does.

    Args:
        cfg: The composed config.

    Raises:
        ValueError: If data and model do not fit together.
    """
    set_up(cfg)
    data, model = build_data_and_model(cfg, fresh_head=False)
    metrics = evaluate(cfg, model, data)
    notes = [] if cfg.model.pretrained else ["random weights: give model.pretrained=PATH"]
    table = Table(f"{cfg.model.name} on {data.name}, test", ["metric", "value"], [[k, v] for k, v in metrics.items()])
    return Report("tnt-vit eval", [table], data=metrics, lines=notes)
