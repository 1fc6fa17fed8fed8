"""Tasks on Ray: a cluster that runs already, or one of this machine for the time of the run."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from effkit.cluster import joined
from effkit.executors.errors import Stopped, WorkerDied
from effkit.executors.worker import Call

__all__ = ["Cluster", "open_cluster"]

_LOOK = 0.05  # seconds between looks at whether to stop


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
        except exceptions.WorkerCrashedError:
            raise WorkerDied("its process ended early") from None
        except (exceptions.NodeDiedError, exceptions.ObjectLostError) as error:
            raise WorkerDied(f"its node is lost: {type(error).__name__}") from None
        except BaseException:
            with contextlib.suppress(Exception):
                ray.cancel(reference, force=True)
            raise
        return answer

    def close(self) -> None:
        """Nothing to do: Ray ends its workers."""


def open_cluster(
    workers: int,
    threads: int,
    stop: threading.Event,
    *,
    fresh: bool = False,
    address: str | None = None,
    gpus: float = 0,
) -> Cluster:
    """Connect to a cluster, or start one of this machine.

    Args:
        workers: How many tasks at once.
        threads: Cores of each.
        stop: Set to end everything.
        fresh: A new process for every task.
        address: Of a running cluster, ``HOST:PORT`` or ``auto``; ``None`` starts one.
        gpus: Of each task.

    Raises:
        UserError: If Ray is not installed, or no cluster answers at the address.
    """
    # The sizes of a cluster that runs are its own.
    sizes: dict[str, Any] = {} if address is not None else {"num_cpus": workers * threads}
    if address is None and gpus:
        sizes["num_gpus"] = gpus * workers
    with contextlib.ExitStack() as joining:
        ray = joining.enter_context(joined("executor=ray", address, log_to_driver=False, **sizes))
        options: dict[str, Any] = {"num_cpus": threads, "num_gpus": gpus, "max_retries": 0}
        remote = ray.remote(_perform).options(**options, **({"max_calls": 1} if fresh else {}))
        return Cluster([RayLane(remote, stop) for _ in range(workers)], joining.pop_all().close)


def _perform(call: Call) -> bytes:
    return call()
