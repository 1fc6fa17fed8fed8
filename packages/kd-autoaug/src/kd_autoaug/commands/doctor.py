"""The command ``doctor``: what loads on this machine, and whether each backend gives Pillow's bits here and now."""

from __future__ import annotations

from typing import Any

import PIL
import timm
import torch
import torchvision

import effkit.doctor
from effkit.device import Backend
from effkit.doctor import triton_kernels
from effkit.report import Report
from kd_autoaug.ops.parity import sweep

__all__ = ["checks", "doctor_report", "run"]

_SIZES = ((1, 5), (5, 17), (70, 64), (150, 140))


def _backend(backend: str) -> Backend:
    found = sweep(sizes=_SIZES, backend=backend)
    if found.differing:
        return Backend(f"backend {backend}", False, f"differs from Pillow {PIL.__version__}: {found.first}")
    return Backend(f"backend {backend}", True, f"{found.bytes:,} bytes in {found.cases} cases equal Pillow's")


def checks() -> list[Backend]:
    """Everything the package can use, in order."""
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}"
    peers = Backend("peers", True, versions)
    return [peers, _backend("torch"), _backend("pil"), triton_kernels("backend triton")]


def doctor_report() -> Report:
    """The core's report with this package's own checks in front; exit code 1 if a backend gives wrong bits."""
    found = checks()
    report = effkit.doctor.doctor_report("kd-autoaug", found, key="kd_autoaug")
    if any(not c.available and "differs" in c.reason for c in found):
        report.exit_code = 1
    return report


def run(cfg: Any) -> Report:
    """Look at this machine; there is nothing to configure."""
    return doctor_report()
