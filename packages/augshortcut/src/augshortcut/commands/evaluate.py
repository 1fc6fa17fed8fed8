"""Measure a trained model on the test split of a data set."""

from __future__ import annotations

from typing import Any

from augshortcut.commands.build import open_both, set_up
from effkit.lightning import evaluation_report
from effkit.report import Report

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
    lines = [] if found.trained else ["random weights: give run=RUN or model.pretrained=PATH"]
    return evaluation_report(
        "augshortcut eval", cfg, found.model, data, name=found.name, printed=cfg.expected.top1, lines=lines
    )
