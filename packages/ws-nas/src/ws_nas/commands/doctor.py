"""What works on this machine, and why the rest does not."""

from __future__ import annotations

from typing import Any

from effkit.doctor import doctor_report
from effkit.report import Report

__all__ = ["run"]


def run(cfg: Any) -> Report:
    """Do what ``ws-nas doctor`` does.

    Args:
        cfg: The composed config.
    """
    return doctor_report("ws-nas", [])
