"""Measure a trained model on the test split of a data set."""

from __future__ import annotations

from typing import Any

from augshortcut.commands.build import open_both, set_up
from effkit.lightning import evaluate
from effkit.report import Report, Table

__all__ = ["run"]


def run(cfg: Any) -> Report:
    """Do what ``augshortcut eval`` does.

    Args:
        cfg: The composed config.

    Raises:
        ValueError: If data and model do not fit together.
    """
    set_up(cfg)
    data, found = open_both(cfg)
    metrics = evaluate(cfg, found.model, data)
    rows = [[k, v] for k, v in metrics.items()]
    if cfg.expected.top1 is not None:
        rows.append(["paper's top1", cfg.expected.top1])
    notes = [] if found.trained else ["random weights: give run=RUN or model.pretrained=PATH"]
    table = Table(f"{found.name} on {data.name}, test", ["metric", "value"], rows)
    return Report("augshortcut eval", [table], data=metrics, lines=notes)
