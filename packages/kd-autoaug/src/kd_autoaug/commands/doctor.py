"""The command ``doctor``: what loads on this machine, and whether each backend gives Pillow's bits here and now."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import PIL
import timm
import torch
import torchvision

from effkit.device import doctor_report as core_report
from effkit.report import Report, Table
from kd_autoaug.ops.parity import sweep

__all__ = ["Check", "checks", "doctor_report"]

_SIZES = ((1, 5), (5, 17), (70, 64), (150, 140))


@dataclass(frozen=True)
class Check:
    """One thing that may be missing or wrong.

    Attributes:
        name: What it is.
        available: Whether it works here.
        reason: What was found, or why not.
    """

    name: str
    available: bool
    reason: str


def _backend(backend: str) -> Check:
    found = sweep(sizes=_SIZES, backend=backend)
    if found.differing:
        return Check(f"backend {backend}", False, f"differs from Pillow {PIL.__version__}: {found.first}")
    return Check(f"backend {backend}", True, f"{found.bytes:,} bytes in {found.cases} cases equal Pillow's")


def _triton() -> Check:
    if not torch.cuda.is_available():
        return Check("backend triton", False, "no CUDA device; TRITON_INTERPRET=1 runs its kernels slowly for tests")
    try:
        import triton
    except ImportError as error:
        return Check("backend triton", False, str(error))
    return Check("backend triton", True, f"triton {triton.__version__} on {torch.cuda.get_device_name()}")


def checks() -> list[Check]:
    """Everything the package can use, in order."""
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}"
    return [Check("peers", True, versions), _backend("torch"), _backend("pil"), _triton()]


def doctor_report() -> Report:
    """The core's report with this package's own checks in front; exit code 1 if a backend gives wrong bits."""
    report, found = core_report(), checks()
    table = Table("kd-autoaug", ["what", "works here", "found"], [[c.name, c.available, c.reason] for c in found])
    report.tables.insert(0, table)
    report.data["kd_autoaug"] = [asdict(c) for c in found]
    if any(not c.available and "differs" in c.reason for c in found):
        report.exit_code = 1
    return report
