"""The jobs of a sweep, and the answer for one that gave none."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

__all__ = ["Sweep"]


@dataclass
class Sweep:
    """What Hydra hands to a launcher.

    Args:
        context: Composes the config of a job.
        task: What runs in a job, an ``effkit.cli.job.Job``: it returns an outcome, and makes one for a lost job.
        config: The config before the jobs are told apart.
        jobs: The words of each.
        first: Number of the first.
    """

    context: HydraContext
    task: Any
    config: DictConfig
    jobs: list[list[str]]
    first: int

    def begin(self) -> Path:
        """Make the folder of the sweep and log as its config says; returns the folder, absolute.

        Jobs run elsewhere, perhaps in another working directory.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        if "mode" in self.config.hydra.sweep:
            os.chmod(folder, mode=int(str(self.config.hydra.sweep.mode), 8))
        with open_dict(self.config.hydra.sweep):
            self.config.hydra.sweep.dir = str(folder)
        return folder

    def number(self, index: int) -> int:
        """Number of the job at a place of this batch."""
        return self.first + index

    def words(self, index: int) -> str:
        """Its words, for people."""
        return " ".join(filter_overrides(self.jobs[index]))

    def job_config(self, index: int, job_id: str | None = None) -> DictConfig:
        """Compose the config of a job."""
        config = self.context.config_loader.load_sweep_config(self.config, list(self.jobs[index]))
        with open_dict(config):
            config.hydra.job.num = self.number(index)
            config.hydra.job.id = job_id or f"job_id_for_{self.number(index)}"
        return config

    def lost(self, index: int, line: str, tail: str = "", *, interrupted: bool = False) -> JobReturn:
        """Answer for a job that gave none.

        Args:
            index: Its place in this batch.
            line: What became of it, in one line.
            tail: The last it said on standard error.
            interrupted: It was told to stop.
        """
        config = self.job_config(index)
        running, before = HydraConfig.instance(), HydraConfig.instance().cfg
        running.set_config(config)  # the name of the folder may ask for it
        try:
            folder = str(Path(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir)))
        finally:
            running.cfg = before
        overrides: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        answer = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
        answer.return_value = self.task.lost(overrides, folder, line, tail, interrupted=interrupted)
        return answer
