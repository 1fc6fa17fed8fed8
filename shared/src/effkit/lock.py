"""One run a folder: a lock file that names host and process, and outlives neither by mistake."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from effkit.atomic import alive
from effkit.errors import UserError
from effkit.provenance import now

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "locked"]

LOCK = "lock"


@contextlib.contextmanager
def locked(folder: Path, tell: Callable[[str], None], key: str = "output") -> Iterator[None]:
    """Hold a folder inside the block.

    The operating system gives up the lock of a process however it ends. The file it leaves after `kill -9` is then
    taken over. Where the file was left by another host, whose locks may not be seen here, only a person can decide.

    Args:
        folder: The folder; it exists.
        tell: Told in one line if the lock of a run that is gone is taken over.
        key: What names the folder on the command line, for messages.

    Raises:
        UserError: If another run holds the folder; names host, process and file.
    """
    path = folder / LOCK
    file, locks = _open(path, key)
    with file:
        left = _read(file)
        if left:
            if left["host"] != platform.node() or (not locks and alive(left["pid"])):
                raise UserError(f"{_held(folder, key, left)}; if that run is gone, delete {str(path)!r}")
            tell(f"taking over {folder}: the run that held it, process {left['pid']}, is gone")
        file.seek(0)
        file.truncate()
        json.dump({"host": platform.node(), "pid": os.getpid(), "since": now()}, file)
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def _open(path: Path, key: str) -> tuple[IO[str], bool]:
    """Open and lock the file, and make sure that it is still the one others will open; whether there are locks here."""
    while True:
        file, locks = open(path, "a+", encoding="utf-8"), fcntl is not None  # noqa: SIM115
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                raise UserError(_held(path.parent, key, _read(file))) from None
        except OSError:  # a file system without locks: the process named in the file decides
            locks = False
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file, locks
        file.close()  # the run that held it removed it between our opening and our locking


def _read(file: IO[str]) -> dict[str, Any] | None:
    """What the file says; `None` if it is new."""
    file.seek(0)
    text = file.read()
    if not text:
        return None
    with contextlib.suppress(ValueError, KeyError, TypeError):
        found = json.loads(text)
        return {"host": str(found["host"]), "pid": int(found["pid"]), "since": str(found["since"])}
    return {"host": platform.node(), "pid": 0, "since": "an unknown time"}


def _held(folder: Path, key: str, by: dict[str, Any] | None) -> str:
    who = f" since {by['since']} (process {by['pid']} on {by['host']})" if by and by["pid"] else ""
    return f"{key}={str(folder)!r} is in use by another run{who}"
