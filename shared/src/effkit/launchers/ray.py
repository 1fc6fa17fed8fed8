"""Jobs of a sweep on Ray: one task each, on this machine or on a cluster that runs already."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from effkit.cluster import joined, library
from effkit.errors import UserError
from effkit.launchers.sweep import Sweep

__all__ = ["launch"]

log = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds that jobs have to put their folders in order when the sweep is told to stop


@dataclass
class There:
    """A job's task, in the working directory that the sweep was started in: that of a worker is another one.

    Args:
        task: The task.
        cwd: Where the sweep was started.
    """

    task: Any
    cwd: str

    def __call__(self, config: Any) -> Any:
        try:
            os.chdir(self.cwd)
        except OSError:
            line = f"the node {platform.node()} does not see {self.cwd}: start the sweep in a folder that nodes share"
            running = HydraConfig.get()
            return self.task.lost(list(running.overrides.task), str(running.runtime.output_dir), line)
        return self.task(config)


def launch(
    sweep: Sweep,
    *,
    address: str | None = None,
    cpus_per_job: float = 1,
    gpus_per_job: float = 0,
    memory_gb: float | None = None,
    retries: int = 0,
    init: Mapping[str, Any] | None = None,
    remote: Mapping[str, Any] | None = None,
) -> list[JobReturn]:
    """Run the jobs of a sweep.

    Args:
        sweep: The jobs.
        address: Of a running cluster; ``None`` starts one on this machine for the time of the sweep.
        cpus_per_job: What a job takes of a node, and with it how many run at once.
        gpus_per_job: Likewise.
        memory_gb: Likewise; ``None``: it is not counted.
        retries: How often a job whose process died is begun again.
        init: Further arguments of ``ray.init``.
        remote: Further options of a Ray task.

    Returns:
        One answer a job.

    Raises:
        UserError: If Ray is missing, no cluster answers, or no node of it can ever hold a job.
    """
    what = "hydra/launcher=ray_local" if address is None else "hydra/launcher=ray_cluster"
    options = {"num_cpus": cpus_per_job, "num_gpus": gpus_per_job, "max_retries": retries, **(remote or {})}
    if memory_gb is not None:
        options["memory"] = int(memory_gb * 2**30)
    folder = sweep.begin()
    with joined(what, address, **(init or {})) as ray:
        plugin = library(what, "hydra_plugins.hydra_ray_launcher._launcher_util", "ray")  # imports Ray: not before
        _check_room(ray, what, options)
        log.info(f"Ray: {len(sweep.jobs)} jobs into {folder}")
        references = []
        for index in range(len(sweep.jobs)):
            log.info(f"\t#{sweep.number(index)} : {sweep.words(index)}")
            references.append(
                plugin.launch_job_on_ray(
                    sweep.context,
                    OmegaConf.create(options),
                    sweep.job_config(index),
                    There(sweep.task, os.getcwd()),
                    Singleton.get_state(),
                )
            )
        try:
            ray.wait(references, num_returns=len(references))
        except KeyboardInterrupt:
            _end(ray, references)
            raise
        return [_answer(ray, sweep, index, reference) for index, reference in enumerate(references)]


def _check_room(ray: Any, what: str, options: Mapping[str, Any]) -> None:
    """Refuse jobs that no node can hold: Ray would wait for such a node without end."""
    asked = {"CPU": options["num_cpus"], "GPU": options["num_gpus"], "memory": options.get("memory", 0)}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for name, key in (("CPU", "cpus_per_job"), ("GPU", "gpus_per_job"), ("memory", "memory_gb")):
        most = max((node.get(name, 0) for node in nodes), default=0)
        if asked[name] > most:
            unit = 2**30 if name == "memory" else 1
            raise UserError(
                f"{what}: hydra.launcher.{key}={asked[name] / unit:g}, but no node has more than {most / unit:g}"
            )


def _answer(ray: Any, sweep: Sweep, index: int, reference: Any) -> JobReturn:
    """What the job returned, or how its process ended."""
    try:
        answer: JobReturn = ray.get(reference)
        return answer
    except ray.exceptions.RayTaskError as error:
        return sweep.lost(index, _last(error), str(error))
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return sweep.lost(index, f"its process on Ray is gone: {type(error).__name__}: {lines[0] if lines else ''}")


def _last(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2].strip()


def _end(ray: Any, references: list[Any]) -> None:
    """Tell all jobs to stop as Ctrl-C would, wait for them to put their folders in order, and end what is left."""
    for reference in references:
        with contextlib.suppress(Exception):
            ray.cancel(reference)
    with contextlib.suppress(Exception):
        ray.wait(references, num_returns=len(references), timeout=_PATIENCE)
    for reference in references:
        with contextlib.suppress(Exception):
            ray.cancel(reference, force=True)
