"""What works on this machine, and why the rest does not."""

from __future__ import annotations

from typing import Any

from effkit.doctor import doctor_report, triton_kernels
from effkit.report import Report

__all__ = ["run"]


def run(cfg: Any) -> Report:
    """Do what ``augshortcut doctor`` does.

    Args:
        cfg: The composed config.
    """
    return doctor_report("augshortcut", [triton_kernels("fused paths")], key="kernels")
