"""The command ``doctor``: what loads on this machine of what ESA can use, and why the rest does not."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from effkit.doctor import doctor_report as core_report
from effkit.report import Report, Table
from esa_attention.integration.cache_argument import CACHE_NAMES
from esa_attention.ops.attention_torch import _cpu_kernel_works

__all__ = ["Check", "checks", "doctor_report"]


@dataclass(frozen=True)
class Check:
    """One thing that may be missing.

    Attributes:
        name: What it is.
        available: Whether it works here.
        reason: What was found, or why not.
    """

    name: str
    available: bool
    reason: str


def _transformers() -> Check:
    import transformers

    return Check("transformers", True, f"{transformers.__version__}; cache argument {' or '.join(CACHE_NAMES)}")


def _cpu_attention() -> Check:
    if _cpu_kernel_works(torch.float32):
        return Check("CPU flash kernel with lse", True, "private operator of torch, checked against ours")
    return Check("CPU flash kernel with lse", False, "this torch has no such operator; plain products are used")


def _int8_product() -> Check:
    keys, digits = torch.ones(8, 16, dtype=torch.int8), torch.ones(16, 2, dtype=torch.int8)
    try:
        torch._int_mm(keys, digits)
    except (RuntimeError, AttributeError) as error:
        return Check("CPU int8 product", False, f"float products are used instead: {str(error).splitlines()[0]}")
    return Check("CPU int8 product", True, "torch._int_mm, exact integer sums")


def _triton() -> Check:
    if not torch.cuda.is_available():
        return Check("triton kernels", False, "no CUDA device; TRITON_INTERPRET=1 runs them slowly for tests")
    try:
        import triton
    except ImportError as error:
        return Check("triton kernels", False, str(error))
    return Check("triton kernels", True, f"triton {triton.__version__} on {torch.cuda.get_device_name()}")


def checks() -> list[Check]:
    """Everything ESA can use, in order."""
    return [_transformers(), _cpu_attention(), _int8_product(), _triton()]


def doctor_report() -> Report:
    """The core's report with ESA's own checks in front."""
    report, found = core_report(), checks()
    table = Table("ESA", ["what", "works here", "found"], [[c.name, c.available, c.reason] for c in found])
    report.tables.insert(0, table)
    report.data["esa"] = [asdict(c) for c in found]
    return report
