"""The command ``reproduce``."""

from __future__ import annotations

from typing import Any

from effkit.cli import run_dir
from effkit.report import Report
from effkit.reproduce import paper_report
from esa_attention.commands.build import plain
from esa_attention.paper.rows import PAPER

__all__ = ["run"]


def run(cfg: Any) -> Report:
    """Run the command with a composed config."""
    return paper_report(PAPER, table=plain(cfg.table), claim=cfg.claim, run_dir=run_dir(), full=cfg.full)
