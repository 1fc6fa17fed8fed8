"""What the user chooses: which executor, how many workers, and the few words each library needs."""

from __future__ import annotations

import inspect
import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effkit.arguments import check_arguments
from effkit.errors import UserError, choose, written
from effkit.executors.pool import PoolExecutor
from effkit.executors.serial import SerialExecutor
from effkit.executors.threads import available_cores, divided
from effkit.executors.worker import in_worker

__all__ = ["EXECUTORS", "Choice"]

EXECUTORS = ("serial", "process", "ray", "submitit")
_MOST = 4096  # each worker is watched by a thread of this process
log = logging.getLogger(__name__)


def _ray(address: str | None = None, gpus: float = 0) -> None:
    """Options of ``executor=ray``, and their defaults."""


def _submitit(
    cluster: str | None = None,
    partition: str | None = None,
    minutes: int = 60,
    memory_gb: float | None = None,
    gpus: int = 0,
) -> None:
    """Options of ``executor=submitit``, and their defaults."""


_OPTIONS: dict[str, Callable[..., Any]] = {"ray": _ray, "submitit": _submitit}


@dataclass(frozen=True)
class Choice:
    """Which executor, and with what; the fields are the keys of the config ``executors``.

    Args:
        executor: ``serial`` (this process), ``process`` (this machine), ``ray`` or ``submitit`` (SLURM).
        workers: How many tasks at once; one a core if ``None``.
        threads: CPU threads of all workers on this machine together, of each one elsewhere; ``None``: as many as torch
            uses here, divided, and 1 elsewhere.
        ray: ``address`` of a running cluster (``null``: one of this machine, for this run), ``gpus`` of each task.
        submitit: ``cluster`` (``slurm``, ``local``, ``debug``; ``null``: SLURM where it is), ``partition``,
            ``minutes``, ``memory_gb``, ``gpus`` of each job.
        folder: Where submitit keeps its jobs; on a disk that the nodes share.

    Raises:
        UserError: If a value is not allowed.
    """

    executor: str = "serial"
    workers: int | None = None
    threads: int | None = None
    ray: Mapping[str, Any] = field(default_factory=dict)
    submitit: Mapping[str, Any] = field(default_factory=dict)
    folder: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        choose("executor", self.executor, EXECUTORS)
        for name in ("workers", "threads"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UserError(f"{name}={value!r} must be a whole number of at least 1; leave it out for one a core")
            if value is not None and value > _MOST:
                raise UserError(f"{name}={value} must be at most {_MOST}")
        for group, function in _OPTIONS.items():
            _check_options(group, function, getattr(self, group), used=group == self.executor)
        if self.executor == "serial" and self.workers not in (None, 1):
            raise UserError(
                f"workers={self.workers} needs an executor other than serial: executor={'|'.join(EXECUTORS[1:])}"
            )

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any], folder: str | os.PathLike[str] | None = None) -> Choice:
        """From the keys ``executor``, ``workers``, ``threads``, ``ray`` and ``submitit`` of a composed config.

        Args:
            cfg: The config.
            folder: For submitit.
        """
        return cls(
            executor=cfg["executor"],
            workers=cfg["workers"],
            threads=cfg.get("threads"),
            ray=dict(cfg.get("ray") or {}),
            submitit=dict(cfg.get("submitit") or {}),
            folder=folder,
        )

    @property
    def one_machine(self) -> bool:
        """Whether all workers are on this machine for sure, so that they see a file at the same time."""
        if self.executor == "ray":
            return self.ray.get("address") is None
        return self.executor != "submitit" or self.submitit.get("cluster") in ("local", "debug")

    def count(self, tasks: int | None = None) -> int:
        """How many workers there will be, for so many tasks; one that had nothing to do would only take memory."""
        if self.executor == "serial" or in_worker():
            return 1
        workers = available_cores() if self.workers is None else self.workers
        return workers if tasks is None else max(1, min(workers, tasks))

    def open(
        self,
        *,
        tasks: int | None = None,
        fresh: bool = False,
        threads_each: int | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> PoolExecutor | SerialExecutor:
        """Make the executor; use it in a ``with`` block, which ends all workers however it is left.

        In a worker of another executor it is a serial one, whatever was chosen: the results are the same, and the cores
        are taken.

        Args:
            tasks: How many there will be; so many workers at most.
            fresh: A new process for every task.
            threads_each: CPU threads of each worker, instead of what is divided.
            tell: Told in one line if a task is run once more; a warning in the log if not given.

        Raises:
            UserError: If a library is not installed, a cluster does not answer, or a key does not fit.
        """
        tell = log.warning if tell is None else tell
        if self.executor != "serial" and in_worker():
            log.info("executor=%s inside a worker: one task after the other instead", self.executor)
        if self.executor == "serial" or in_worker():
            return SerialExecutor()
        count, stop = self.count(tasks), threading.Event()
        if self.executor == "process":
            from effkit.executors.process import ProcessLane

            threads = threads_each or divided(self.threads, count)
            lanes = [ProcessLane(threads, stop, fresh) for _ in range(count)]
            return PoolExecutor("process", lanes, stop, threads=threads, tell=tell)
        threads = threads_each or self.threads or 1
        if self.executor == "ray":
            from effkit.executors.ray_tasks import open_cluster

            cluster = open_cluster(count, threads, stop, fresh=fresh, **self.ray)
            return PoolExecutor("ray", cluster.lanes, stop, threads=threads, tell=tell, release=cluster.release)
        from effkit.executors.submitit_jobs import open_jobs

        if self.folder is None:
            raise UserError("executor=submitit needs a folder for its jobs on a disk that the nodes share, got none")
        jobs = open_jobs(count, threads, stop, Path(self.folder), **self.submitit)
        origin = os.getpid() if jobs.cluster == "local" else None
        return PoolExecutor(
            "submitit", jobs.lanes, stop, threads=threads, tell=tell, release=jobs.release, origin=origin
        )


def _check_options(group: str, function: Callable[..., Any], given: Mapping[str, Any], used: bool) -> None:
    """Refuse options that are none, of a wrong kind or range, or of an executor that was not chosen."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
    for key in given:
        choose(f"{group} key", key, defaults)
    check_arguments(function, given, f"{group}.")
    for key, value in given.items():
        if not used and value != defaults[key]:
            raise UserError(f"{group}.{key}={written(value)} needs executor={group}: leave it out, or take that")
        least = 0 if key == "gpus" else 1 if key == "minutes" else 0.001
        if isinstance(value, int | float) and value < least:
            raise UserError(f"{group}.{key}={written(value)} must be at least {least:g}")
