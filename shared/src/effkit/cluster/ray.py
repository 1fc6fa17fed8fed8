"""Ray: join a cluster that runs, or start one on this machine for the time of a block.

Ray itself waits for minutes for a cluster that is not there, and then ends the process.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from effkit.cluster.extras import library
from effkit.errors import UserError

__all__ = ["PATIENCE", "joined"]

PATIENCE = 10.0
"""Seconds that a cluster has to answer."""
# Before Ray is imported. Nothing is reported to anybody; a program started by `uv run` runs in an environment that is
# there already, and Ray would pack the working directory and build another one; GPUs that are hidden stay hidden; equal
# lines of two jobs are two lines.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
# A cluster of one machine listens on its loopback only; the name is from where Ray does so by itself.
_HERE_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


_LOCALHOST = ("localhost", "127.0.0.1", "::1")


@contextlib.contextmanager
def joined(what: str, address: str | None = None, **init: Any) -> Iterator[Any]:
    """Be part of a Ray cluster inside the block; where this process is part of one already, of that.

    Args:
        what: What asks, as the user wrote it: ``"hydra/launcher=ray_cluster"``.
        address: Of a running cluster, ``HOST:PORT``, ``ray://HOST:PORT`` or ``auto``; ``None`` starts one on this
            machine, of which nothing is left after the block.
        **init: Further arguments of ``ray.init``.

    Yields:
        The module ``ray``.

    Raises:
        UserError: If Ray is not installed, or no cluster answers at the address.
    """
    with contextlib.ExitStack() as closing:
        closing.enter_context(_environment(_QUIET | _HERE_ONLY if address is None else _QUIET))
        ray = library(what, "ray", "ray")
        logging.getLogger("ray").setLevel(logging.ERROR)
        # Ray prints what happens to its workers on standard output, which is for the report.
        closing.enter_context(contextlib.redirect_stdout(sys.stderr))
        if not ray.is_initialized():
            options = {"configure_logging": False, "logging_level": "ERROR", **init}
            with _signals_kept():
                if address is None:
                    _start(ray, closing, options)
                else:
                    _join(ray, what, address, options)
            closing.callback(ray.shutdown)
        yield ray


def _start(ray: Any, closing: contextlib.ExitStack, options: dict[str, Any]) -> None:
    """Start a cluster of this machine: no session is left under the temporary folder, no token in the home folder."""
    if "RAY_AUTH_MODE" not in os.environ:
        closing.callback(os.environ.pop, "RAY_AUTH_MODE", None)  # Ray sets it
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        closing.enter_context(_environment({"RAY_AUTH_TOKEN": _token()}))
    folder = closing.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
    here = {"_temp_dir": folder, "include_dashboard": False}
    ray.init(address="local", **{**here, **options})


def _join(ray: Any, what: str, address: str, options: dict[str, Any]) -> None:
    """Connect to a cluster that runs: its sizes are its own, and may not be given."""
    place = address
    if address == "auto":
        place = os.environ.get("RAY_ADDRESS") or _last_started() or "auto"
    nobody, seconds = f"{what}: no Ray cluster answers at {place}", f"within {PATIENCE:.0f} s"
    if place != "auto":
        host, colon, port = place.removeprefix("ray://").rpartition(":")
        if not (colon and host and port.isdecimal() and int(port) < 2**16 and "/" not in host):
            raise UserError(f"{what}: the address {place!r} must be HOST:PORT, ray://HOST:PORT or auto")
        if host in _LOCALHOST and not place.startswith("ray://"):
            host = ray.util.get_node_ip_address()  # which is where Ray will go
            nobody += f" ({host}:{port} to Ray)" if host not in _LOCALHOST else ""
        if not _answers(host, int(port)):
            raise UserError(f"{nobody} {seconds}")
    try:
        ray.init(address=place, **options)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        raise UserError(f"{nobody} {seconds} ({_first_line(error)})") from error


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
    """Lets nobody else into a cluster that this process starts; one for all of them, because Ray reads it once."""
    return secrets.token_hex(32)


def _last_started() -> str:
    """Where `ray start` on this machine left the address of its cluster; it stays there if that was killed."""
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    with contextlib.suppress(OSError):
        return (folder / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
    return ""


def _answers(host: str, port: int) -> bool:
    """Whether a server of Ray's protocol (gRPC) listens there, not only something."""
    deadline = time.monotonic() + PATIENCE
    try:
        socket.create_connection((host, port), timeout=PATIENCE).close()
    except OSError:
        return False
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return True
    try:
        import grpc
    except ImportError:  # not a part of a small installation of Ray
        return True
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=max(deadline - time.monotonic(), 0.1))
        except grpc.FutureTimeoutError:
            return False
    return True


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
