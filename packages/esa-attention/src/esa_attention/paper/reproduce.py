"""The command ``reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from effkit.report import Report
from effkit.reproduce import paper_report
from esa_attention.commands.build import plain
from esa_attention.paper.rows import PAPER, table_names

__all__ = ["run"]


def run(cfg: Any, folder: Path) -> Report:
    """The command.

    Args:
        cfg: Composed config.
        folder: Of the run.
    """
    return paper_report(PAPER, table=table_names(plain(cfg.table)), claim=cfg.claim, run_dir=folder)
