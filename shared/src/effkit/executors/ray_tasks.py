"""Tasks on Ray: a cluster that runs already, or one of this machine for the time of the run."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from effkit.errors import UserError
from effkit.executors.errors import Stopped, WorkerDied
from effkit.executors.extras import library
from effkit.executors.worker import Call

__all__ = ["Cluster", "open_cluster"]

_LOOK = 0.05
_PATIENCE = 10.0  # seconds for a cluster to answer
# Before Ray is imported. Nothing is reported to anybody; a program started by `uv run` runs in an environment that is
# there already, and Ray would pack the working directory and build another one; GPUs that are hidden stay hidden.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass
class Cluster:
    """A connection to Ray.

    Attributes:
        lanes: One for each worker.
        release: Gives up the connection, and ends a cluster that was started for it.
    """

    lanes: Sequence[RayLane]
    release: Callable[[], None]


class RayLane:
    """Room for one task at a time on the cluster.

    Args:
        remote: Ray's remote function for a call.
        stop: Set to end everything.
    """

    def __init__(self, remote: Any, stop: threading.Event) -> None:
        self._remote, self._stop = remote, stop

    def call(self, call: Call) -> bytes:
        """Run a call on the cluster; see :class:`effkit.executors.pool.Lane`."""
        import ray
        from ray import exceptions

        reference = self._remote.remote(call)
        try:
            future = reference.future()
            while not future.done():
                if self._stop.is_set():
                    raise Stopped("the workers are being ended")
                concurrent.futures.wait([future], timeout=_LOOK)
            answer: bytes = future.result()
        except exceptions.OutOfMemoryError:
            raise WorkerDied("killed by Ray, because its node ran out of memory") from None
        except (exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.ObjectLostError) as error:
            raise WorkerDied(f"{type(error).__name__} of Ray: {_first_line(error)}") from None
        except BaseException:
            with contextlib.suppress(Exception):
                ray.cancel(reference, force=True)
            raise
        return answer

    def close(self) -> None:
        """Nothing to do: Ray ends its workers."""


def open_cluster(
    workers: int, threads: int, stop: threading.Event, *, fresh: bool = False, address: str | None = None, gpus: float = 0
) -> Cluster:
    """Connect to a cluster, or start one of this machine.

    Args:
        workers: How many tasks at once.
        threads: Cores of each.
        stop: Set to end everything.
        fresh: A new process for every task.
        address: Of a running cluster, ``HOST:PORT``, ``ray://HOST:PORT`` or ``auto``; ``None`` starts one.
        gpus: Of each task.

    Raises:
        UserError: If Ray is not installed, or no cluster answers at the address.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray: Any = library("ray", "ray", "ray")
    ours = not ray.is_initialized()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    if ours and address is None:
        cores = max(workers * threads, 1)
        ray.init(num_cpus=cores, num_gpus=gpus * workers or None, include_dashboard=False, **quiet)
    elif ours:
        _connect(ray, address, quiet)
    options: dict[str, Any] = {"num_cpus": threads, "num_gpus": gpus, "max_retries": 0}
    remote = ray.remote(_perform).options(**options, **({"max_calls": 1} if fresh else {}))
    return Cluster([RayLane(remote, stop) for _ in range(workers)], ray.shutdown if ours else _keep)


def _perform(call: Call) -> bytes:
    return call()


def _keep() -> None:
    """A connection that was there before stays."""


def _connect(ray: Any, address: str, quiet: dict[str, Any]) -> None:
    """Connect to a cluster that runs: its sizes are its own, and may not be given."""
    nobody = UserError(f"ray.address={address!r}: no Ray cluster answers there within {_PATIENCE:.0f} s")
    place = address.removeprefix("ray://")
    host, colon, port = place.rpartition(":")
    if place != "auto" and not (colon and host and port.isdecimal()):
        raise UserError(f"ray.address={address!r} must be HOST:PORT, ray://HOST:PORT or auto; leave it out for none")
    if place != "auto":
        try:
            socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
        except OSError as error:
            raise UserError(f"{nobody} ({error.strerror or error})") from None
        if not address.startswith("ray://") and not _answers(place):
            raise nobody
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        raise UserError(f"{nobody} ({_first_line(error)})") from error


def _answers(place: str) -> bool:
    """Whether what listens there is a cluster: joining something else would wait for minutes and then end the process."""
    import ray

    try:
        from ray._raylet import GcsClient

        found: list[bool] = []

        def ask() -> None:
            with contextlib.suppress(Exception):
                client = GcsClient(address=place, nums_reconnect_retry=0) if True else None
                found.append(client is not None)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(_PATIENCE)
        return bool(found)
    except ImportError:  # another version of Ray has it elsewhere
        return bool(ray.__version__)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
