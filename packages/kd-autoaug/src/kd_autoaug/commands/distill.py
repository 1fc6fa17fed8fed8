"""``kd-autoaug distill``: training beside a teacher, or from the cache of its answers."""

from __future__ import annotations

from typing import Any

from effkit.report import Report
from kd_autoaug.commands.build import set_up
from kd_autoaug.commands.parts import build_everything
from kd_autoaug.commands.train import fit, run_report

__all__ = ["run"]


def run(cfg: Any) -> Report:
    """Train a student beside a frozen teacher that sees the same pictures, or from the cache of its answers."""
    set_up(cfg)
    parts = build_everything(cfg)
    return run_report("distill", cfg, parts, fit(cfg, parts))
