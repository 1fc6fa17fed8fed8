"""What a figure depends on besides the code."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from effkit.provenance import commit_hash, cpu_name, driver_version, now, package_version

__all__ = ["environment"]

_VERSIONS = (
    *("effkit", "torch", "torchvision", "timm", "lightning", "torchmetrics", "hydra-core", "omegaconf"),
    *("numpy", "scikit-learn", "triton"),
)


def environment() -> dict[str, Any]:
    """What a figure depends on besides the code: versions, processors, driver, threads, commit and date.

    Holds no host name, user name or path, so that it can be published. What is absent is an empty string.
    """
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {name: package_version(name) for name in _VERSIONS},
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if cuda else "",
        "gpus": torch.cuda.device_count() if cuda else 0,
        "driver": driver_version(),
        "cuda": torch.version.cuda or "",
        "commit": commit_hash(),
        "date": now(),
    }
