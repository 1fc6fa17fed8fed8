"""The command ``doctor`` of every package: what works on this machine, and why the rest does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from effkit.device import PRECISIONS, Backend, backends, environment, resolve_device, resolve_precision
from effkit.report import Report, Table

__all__ = ["doctor_report", "triton_kernels"]


def triton_kernels(name: str = "triton kernels") -> Backend:
    """Whether a package's Triton kernels run on this machine, as a check for `doctor_report`."""
    if not torch.cuda.is_available():
        return Backend(name, False, "no CUDA device; TRITON_INTERPRET=1 runs its kernels slowly for tests")
    try:
        import triton
    except ImportError as error:
        return Backend(name, False, str(error))
    return Backend(name, True, f"triton {triton.__version__} on {torch.cuda.get_device_name()}")


def doctor_report(title: str = "", checks: Sequence[Backend] = (), *, key: str = "") -> Report:
    """Versions, devices and backends with reasons, behind a package's own checks.

    Args:
        title: Heading of the package's own checks; none are shown without it.
        checks: Each thing that may be missing, and what was found.
        key: Where `data` holds them; ``title`` if empty.
    """
    facts = environment()
    found = backends()
    rows: list[list[Any]] = [["python", facts["python"]], ["system", facts["system"]]]
    rows += [[name, version or "not installed"] for name, version in facts["versions"].items()]
    rows += [["cpu", facts["cpu"]], ["cores", facts["cores"]], ["torch threads", facts["threads"]]]
    gpu = f"{facts['gpu']} x {facts['gpus']}" if facts["gpus"] else "none"
    rows += [["gpu", gpu], ["driver", facts["driver"] or "none"], ["cuda of torch", facts["cuda"] or "none"]]
    device = resolve_device("auto")
    precision = {dtype: name for name, dtype in PRECISIONS.items()}[resolve_precision("auto", device)]
    rows += [["device=auto", str(device)], ["precision=auto", precision]]
    rows += [["commit", facts["commit"] or "none (not run from a checkout)"], ["date", facts["date"]]]
    own = [Table(title, ["what", "works here", "found"], [[c.name, c.available, c.reason] for c in checks])]
    data: dict[str, Any] = {"environment": facts, "backends": [asdict(b) for b in found]}
    if title:
        data[key or title] = [asdict(c) for c in checks]
    return Report(
        "doctor",
        [
            *(own if title else []),
            Table("Environment", ["what", "value"], rows),
            Table("Backends", ["backend", "loads", "found"], [[b.name, b.available, b.reason] for b in found]),
        ],
        data=data,
    )
