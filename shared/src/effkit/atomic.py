"""Write a file whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import secrets
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

from effkit.errors import UserError

__all__ = ["alive", "atomic", "followed"]

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside a file, and rename what is written there when the block ends well.

    Nobody ever sees half a file under the final name, also after a crash of the machine; permissions are those that
    the umask gives a new file, whatever the writer left. If the block fails, nothing stays behind; what a
    killed process left goes when the same file is written again.

    Args:
        path: Where the file shall be; missing folders are made, an existing file is replaced. A link is followed: what
            it leads to is replaced, and it stays a link.

    Yields:
        The temporary name; the file exists and is empty.

    Raises:
        OSError: If it cannot be written, naming ``path`` and not the temporary file; also in place of what libraries
            raise when the disk is full.

    Example:
        >>> with atomic("weights.bin") as temporary:  # doctest: +SKIP
        ...     temporary.write_bytes(b"...")
    """
    target = followed(path)
    temporary = target.with_name(f"{_mark(target)}{os.getpid()}.{secrets.token_hex(4)}.tmp")
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if target.exists() and not target.is_file():  # a device would be gone afterwards
        raise FileExistsError(errno.EEXIST, "Not a regular file", os.fspath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear(target)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        mode = os.fstat(handle).st_mode & 0o777  # asked for here: reading the umask means setting it for all threads
        os.close(handle)
        yield temporary
        with contextlib.suppress(OSError):  # not every file system has permissions
            os.chmod(temporary, mode)
        _to_disk(temporary, os.O_RDWR)
        os.replace(temporary, target)
        with contextlib.suppress(OSError):  # nor folders that can be synced
            _to_disk(target.parent, os.O_RDONLY)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        number = _number(error, temporary)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), os.fspath(path)) from error


def followed(path: str | os.PathLike[str]) -> Path:
    """What a path leads to if it is a link, else the path itself; it need not exist.

    Raises:
        OSError: If links lead to each other.
    """
    plain = Path(path)
    if not plain.is_symlink():
        return plain
    target = Path(os.path.realpath(plain))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
    return target


def _mark(target: Path) -> str:
    """How the temporary files of this host for a target begin."""
    return f".{target.name[:100]}.{zlib.crc32(platform.node().encode()):08x}."


def _clear(target: Path) -> None:
    """Remove what killed processes of this host left of the same file."""
    mark = _mark(target)
    with contextlib.suppress(OSError):
        for name in os.listdir(target.parent):
            pid = name.removeprefix(mark).partition(".")[0]
            if name.startswith(mark) and name.endswith(".tmp") and pid.isdecimal() and not alive(int(pid)):
                with contextlib.suppress(OSError):
                    (target.parent / name).unlink()


def alive(pid: int) -> bool:
    """Whether there is a process of that number on this host, of whomever."""
    if sys.platform == "win32":  # signal 0 is none there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _to_disk(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # what cannot be synced is left to the system
            raise
    finally:
        os.close(handle)


def _number(error: BaseException, temporary: Path) -> int | None:
    """Number of the system's error about the file, if there is one; libraries hide a full disk in errors of theirs."""
    if isinstance(error, OSError):
        ours = error.errno in _FULL or error.filename in (None, str(temporary), temporary)
        return error.errno if ours else None
    if isinstance(error, UserError) or not isinstance(error, Exception):
        return None
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in _FULL:
            return link.errno
        link = link.__cause__ or link.__context__
    found = re.search(r"\(os error (\d+)\)", str(error))  # as Rust writes it
    return int(found[1]) if found else None
