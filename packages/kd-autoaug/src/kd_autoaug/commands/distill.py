"""``kd-autoaug distill``: training beside a teacher, or from the cache of its answers."""

from __future__ import annotations

from typing import Any

from effkit.report import Report
from kd_autoaug.cache.files import never_left_empty
from kd_autoaug.commands.build import cache_path, set_up
from kd_autoaug.commands.knowing import check_knowing
from kd_autoaug.commands.parts import build_everything
from kd_autoaug.commands.train import fit, run_report
from kd_autoaug.commands.trained import expected_rows

__all__ = ["run"]


def run(cfg: Any) -> Report:
    """Train a student beside a frozen teacher that sees the same pictures, or from the cache of its answers."""
    device = set_up(cfg)
    expected_rows(cfg)  # what cannot be shown is told before the work
    with never_left_empty(cache_path(cfg)):
        parts = build_everything(cfg)
        if parts.module.teacher is not None:
            check_knowing(cfg, parts.data, parts.teacher, device)
        return run_report("distill", cfg, parts, fit(cfg, parts))
