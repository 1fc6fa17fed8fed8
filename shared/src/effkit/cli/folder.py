"""The folder of the running job."""

from __future__ import annotations

from pathlib import Path

__all__ = ["run_dir"]


def run_dir() -> Path:
    """The folder of the running job, where all it writes belongs. Commands that only report have none of their own.

    Raises:
        RuntimeError: If no command is running.
    """
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        raise RuntimeError("run_dir() is the folder of a running command, and no command is running")
    return Path(HydraConfig.get().runtime.output_dir)
