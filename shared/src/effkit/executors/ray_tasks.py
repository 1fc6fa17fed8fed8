"""Tasks on Ray: a cluster that runs already, or one of this machine for the time of the run."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
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
_QUIET = {
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
    closing = contextlib.ExitStack()
    try:
        closing.enter_context(_environment(_QUIET))
        ray: Any = library("ray", "ray", "ray")
        logging.getLogger("ray").setLevel(logging.ERROR)
        # Ray prints what happens to its workers on standard output, which is for the report.
        closing.enter_context(contextlib.redirect_stdout(sys.stderr))
        if not ray.is_initialized():
            with _signals_kept():
                if address is None:
                    _start(ray, closing, workers * threads, gpus * workers)
                else:
                    _connect(ray, address)
            closing.callback(ray.shutdown)
        options: dict[str, Any] = {"num_cpus": threads, "num_gpus": gpus, "max_retries": 0}
        remote = ray.remote(_perform).options(**options, **({"max_calls": 1} if fresh else {}))
    except BaseException:
        closing.close()
        raise
    return Cluster([RayLane(remote, stop) for _ in range(workers)], closing.close)


def _perform(call: Call) -> bytes:
    return call()


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables that are not set, inside the block."""
    ours = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back what SIGTERM did: Ray would answer it with an exit code of its own."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


@functools.cache
def _token() -> str:
    """One for the whole process: Ray reads it once."""
    return secrets.token_hex(32)


_OPTIONS: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}


def _start(ray: Any, closing: contextlib.ExitStack, cores: int, gpus: float) -> None:
    """Start a cluster of this machine, of which nothing stays: no session under /tmp, no token in the home folder."""
    if "RAY_AUTH_MODE" not in os.environ:
        closing.callback(os.environ.pop, "RAY_AUTH_MODE", None)  # Ray sets it
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        closing.enter_context(_environment({"RAY_AUTH_TOKEN": _token()}))
    folder = closing.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
    sizes: dict[str, Any] = {"num_cpus": cores, "include_dashboard": False, "_temp_dir": folder}
    ray.init(**sizes, **({"num_gpus": gpus} if gpus else {}), **_OPTIONS)


def _connect(ray: Any, address: str) -> None:
    """Connect to a cluster that runs: its sizes are its own, and may not be given."""
    nobody = f"ray.address={address!r}: no Ray cluster answers there within {_PATIENCE:.0f} s"
    place = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    host, colon, port = place.rpartition(":")
    if place != "auto":
        if not (colon and host and port.isdecimal() and "/" not in place):
            raise UserError(f"ray.address={place!r} must be HOST:PORT or auto; leave it out to start a cluster here")
        try:
            socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"{nobody} ({getattr(error, 'strerror', None) or error})") from None
        _ask(place, nobody)
    try:
        ray.init(address=place, **_OPTIONS)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        raise UserError(f"{nobody} ({_first_line(error)})") from error


def _ask(place: str, nobody: str) -> None:
    """Ask what listens there for its status, in another process: `ray.init` would wait for minutes, or end this one."""
    command = [sys.executable, "-P", "-m", "ray.scripts.scripts", "status", "--address", place]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(nobody) from None
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise UserError(f"{nobody} ({lines[-1][:200] if lines else f'exit code {done.returncode}'})")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
