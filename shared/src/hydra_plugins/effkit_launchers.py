"""Hydra's door to ``effkit.launchers``: what Hydra starts jobs with must stand in the name space ``hydra_plugins``.

Every program on Hydra in the same environment imports this file when it starts, so nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

__all__ = ["RayLauncher", "SlurmLauncher"]


class _Launcher(Launcher):
    """Keeps what Hydra hands over; `hydra/launcher=OPTION` names the keys."""

    def __init__(self, **options: Any) -> None:
        self.options: dict[str, Any] = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in options.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from effkit.launchers import Sweep

        sweep = Sweep(self.context, self.task, self.config, [list(words) for words in job_overrides], initial_job_idx)
        return self._launch(sweep)

    def _launch(self, sweep: Any) -> Sequence[JobReturn]:
        raise NotImplementedError


class SlurmLauncher(_Launcher):
    """Jobs of SLURM, by submitit."""

    def _launch(self, sweep: Any) -> Sequence[JobReturn]:
        from effkit.launchers.slurm import launch

        return launch(sweep, **self.options)


class RayLauncher(_Launcher):
    """Tasks of a Ray cluster, by Hydra's Ray launcher."""

    def _launch(self, sweep: Any) -> Sequence[JobReturn]:
        from effkit.launchers.ray import launch

        return launch(sweep, **self.options)
