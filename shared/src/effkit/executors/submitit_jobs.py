"""Tasks as jobs of submitit: on SLURM, or as processes of this machine for a trial."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effkit.cluster import check_slurm, library, outside_a_job, watch_queue
from effkit.errors import choose
from effkit.executors.errors import Stopped, WorkerDied
from effkit.executors.worker import Call

__all__ = ["CLUSTERS", "Jobs", "open_jobs"]

CLUSTERS = ("slurm", "local", "debug")
_LOOK = {"slurm": 1.0, "local": 0.1, "debug": 0.0}  # seconds between looks at a job
_in_this_process = threading.Lock()  # for "debug", which changes the environment while it runs
_submitting = threading.Lock()


@dataclass
class Jobs:
    """A way to start jobs.

    Attributes:
        cluster: One of :data:`CLUSTERS`.
        lanes: One for each job at a time.
        release: Removes what submitit kept, if all went well.
    """

    cluster: str
    lanes: Sequence[JobLane]
    release: Callable[[], None]


class JobLane:
    """Room for one job at a time.

    Args:
        executor: submitit's.
        cluster: One of :data:`CLUSTERS`.
        stop: Set to end everything.
        died: Told about jobs that died.
    """

    def __init__(self, executor: Any, cluster: str, stop: threading.Event, died: Callable[[], None]) -> None:
        self._executor, self._cluster, self._stop, self._died = executor, cluster, stop, died

    def call(self, call: Call) -> bytes:
        """Run a call as a job; see :class:`effkit.executors.pool.Lane`."""
        from submitit.core.utils import FailedJobError, UncompletedJobError

        if self._cluster == "debug":
            with _in_this_process:
                answer: bytes = self._executor.submit(call).result()
                return answer
        with _submitting, outside_a_job():  # which changes the environment, as the other
            job = self._executor.submit(call)
        try:
            while not job.done():
                if self._stop.wait(_LOOK[self._cluster]):
                    raise Stopped("the jobs are being cancelled")
            answer = job.result()
        except (UncompletedJobError, FailedJobError):
            self._died()
            raise WorkerDied(f"job {job.job_id} ended without an answer{_last_line(job)}") from None
        except BaseException:
            self._cancel(job)
            raise
        return answer

    def _cancel(self, job: Any) -> None:
        with contextlib.suppress(Exception):
            job.cancel(check=False)
        end = time.monotonic() + 10
        while self._cluster == "local" and time.monotonic() < end and not job.done():
            time.sleep(_LOOK["local"])

    def close(self) -> None:
        """Nothing to do: a job ends with its call."""


def open_jobs(
    workers: int,
    threads: int,
    stop: threading.Event,
    folder: Path,
    *,
    cluster: str | None = None,
    partition: str | None = None,
    minutes: int = 60,
    memory_gb: float | None = None,
    gpus: int = 0,
) -> Jobs:
    """Prepare to start jobs.

    Args:
        workers: How many at once.
        threads: Cores of each.
        stop: Set to end everything.
        folder: For what submitit keeps; on a disk that the nodes share.
        cluster: ``slurm``, ``local`` or ``debug`` (in this process); ``None``: SLURM where it is installed, else local.
        partition: Of SLURM.
        minutes: Time limit of a job.
        memory_gb: Memory of a job.
        gpus: GPUs of a job.

    Raises:
        UserError: If submitit or SLURM is not installed, or a value does not fit.
    """
    submitit: Any = library("executor=submitit", "submitit", "launchers")
    if cluster is None:
        cluster = "slurm" if shutil.which("srun") else "local"
    choose("submitit.cluster", cluster, CLUSTERS)
    if cluster == "slurm":
        check_slurm("submitit.cluster=slurm")
        watch_queue()  # the accounting need not be there
    logging.getLogger("submitit").setLevel(logging.ERROR)
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    asked: dict[str, Any] = {"timeout_min": minutes, "cpus_per_task": threads, "gpus_per_node": gpus, "name": "effkit"}
    asked |= {"mem_gb": memory_gb} if memory_gb is not None else {}
    asked |= {"slurm_partition": partition} if partition is not None else {}
    executor.update_parameters(**asked)
    ended_well = [True]

    def died() -> None:
        ended_well[0] = False

    def release() -> None:
        if ended_well[0] and not stop.is_set():
            shutil.rmtree(folder, ignore_errors=True)

    lanes = [JobLane(executor, cluster, stop, died) for _ in range(1 if cluster == "debug" else workers)]
    return Jobs(cluster, lanes, release)


def _last_line(job: Any) -> str:
    """What a job last wrote on standard error, if anything."""
    with contextlib.suppress(Exception):
        lines = [line for line in (job.stderr() or "").splitlines() if line.strip()]
        if lines:
            return f": {lines[-1].strip()[:200]}"
    return ""
