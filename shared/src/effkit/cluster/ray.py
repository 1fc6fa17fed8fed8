"""Ray: join a cluster that runs, or start one on this machine for the time of a block.

Ray itself waits for minutes for a cluster that is not there, and then ends the process.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
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
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}


@contextlib.contextmanager
def joined(what: str, address: str | None = None, **init: Any) -> Iterator[Any]:
    """Be part of a Ray cluster inside the block; where this process is part of one already, of that.

    Args:
        what: What asks, as the user wrote it: ``"hydra/launcher=ray_cluster"``.
        address: Of a running cluster, ``HOST:PORT``, ``ray://HOST:PORT`` or ``auto``; ``None`` starts one on this
            machine that ends with the block.
        **init: Further arguments of ``ray.init``.

    Yields:
        The module ``ray``.

    Raises:
        UserError: If Ray is not installed, or no cluster answers at the address.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray = library(what, "ray", "ray")
    if ray.is_initialized():
        yield ray
        return
    init.setdefault("configure_logging", False)
    try:
        if address is None:
            _start(ray, init)
        else:
            _join(ray, what, address, init)
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, init: dict[str, Any]) -> None:
    """Start a cluster of this machine, for this process: nobody else is let in."""
    if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # else Ray keeps one at home
    ray.init(address="local", **{"_node_ip_address": "127.0.0.1", "include_dashboard": False} | init)


def _join(ray: Any, what: str, address: str, init: dict[str, Any]) -> None:
    """Connect to a cluster that runs: its sizes are its own, and may not be given."""
    place = address.removeprefix("ray://")
    if place == "auto":
        place = os.environ.get("RAY_ADDRESS") or _last_started() or "auto"
        place = place.removeprefix("ray://")
    host, colon, port = place.rpartition(":")
    nobody = f"{what}: no Ray cluster answers at {address} within {PATIENCE:.0f} s"
    if place != "auto":
        if not (colon and host and port.isdecimal()):
            raise UserError(f"{what}: the address {address!r} must be HOST:PORT, ray://HOST:PORT or auto")
        if not _listens(host, int(port)):
            raise UserError(nobody)
    try:
        ray.init(address=address, **init)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        raise UserError(f"{nobody} ({_first_line(error)})") from error


def _last_started() -> str:
    """Where `ray start` on this machine left the address of its cluster; it stays there if that was killed."""
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    with contextlib.suppress(OSError):
        return (folder / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
    return ""


def _listens(host: str, port: int) -> bool:
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
