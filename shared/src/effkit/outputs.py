"""Whether a file or folder can be written under a name, asked before the work whose result shall stand there."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effkit.atomic import followed
from effkit.errors import UserError, written

__all__ = ["check_output_file", "check_output_folder"]

_LONGEST = 255  # of a name, where the file system does not say


def check_output_file(field: str, value: Any, suffixes: Sequence[str] = (), *, appends: bool = False) -> Path:
    """Check that a file can be written under a name; nothing is left behind.

    The folder may be missing as long as it can be made. An existing file is allowed, as it will be replaced (or added
    to); a link is followed.

    Args:
        field: The key, for the message.
        value: The name.
        suffixes: What it may end in; anything if empty.
        appends: The file is added to, so that an existing one must be readable too.

    Returns:
        The path, ``~`` expanded.

    Raises:
        UserError: If it is empty or no path, ends otherwise, names a folder or a device, is write-protected, or if its
            folder can be neither made nor written to.
    """
    path = _path(field, value, "a file")
    if suffixes and path.suffix not in suffixes:
        ends = suffixes[0] if len(suffixes) == 1 else f"one of {', '.join(suffixes)}"
        raise UserError(f"{field}={os.fspath(value)!r} must end in {ends}")
    try:
        if path.is_dir() or os.fspath(value).endswith(("/", os.sep)):
            raise UserError(f"{field}={os.fspath(value)!r} is a folder, give the name of a file in it")
        target = followed(path)
        if target.exists():
            if not target.is_file():
                raise UserError(f"{field}={os.fspath(value)!r} is no regular file")
            if not os.access(target, os.W_OK):
                raise UserError(f"{field}={os.fspath(value)!r} is write-protected")
            if appends and not os.access(target, os.R_OK):
                raise UserError(f"{field}={os.fspath(value)!r} cannot be read, so nothing can be added to it")
        _try(field, value, target)
    except OSError as error:
        raise _refused(field, value, error) from error
    return path


def check_output_folder(field: str, value: Any) -> Path:
    """Check that files can be written into a folder, which need not exist yet; nothing is left behind.

    Args:
        field: The key, for the message.
        value: The folder.

    Returns:
        The path, ``~`` expanded.

    Raises:
        UserError: If it is empty, is a file, or can be neither made nor written to.
    """
    path = _path(field, value, "a folder")
    try:
        target = followed(path)
        if target.exists() and not target.is_dir():
            raise UserError(f"{field}={os.fspath(value)!r} is a file, give a folder")
        _try(field, value, target / "x")
    except OSError as error:
        raise _refused(field, value, error) from error
    return path


def _path(field: str, value: Any, what: str) -> Path:
    if value is None or value == "":
        raise UserError(f"{field}= is empty: give {what}, or leave {field}= out")
    if not isinstance(value, str | os.PathLike):
        raise UserError(f"{field}={written(value)} must be a path, {what} to write")
    if "\0" in os.fspath(value):
        raise UserError(f"{field}={os.fspath(value)!r} must be a path, without zero bytes")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:  # ~somebody
        raise UserError(f"{field}={os.fspath(value)!r}: {error}") from error


def _try(field: str, value: Any, target: Path) -> None:
    """Make and remove a file in the nearest folder that exists, where the file or its folders will be made."""
    target = Path(os.path.abspath(target))
    folder = target.parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"{field}={os.fspath(value)!r} cannot be written: {os.fspath(folder)!r} is no folder")
    try:
        longest = os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, AttributeError, ValueError):
        longest = _LONGEST
    for name in target.relative_to(folder).parts:
        if len(os.fsencode(name)) > longest:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)
    probe = folder / f".effkit-{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        where = os.fspath(folder)
        raise OSError(error.errno, f"no file can be made in {where!r} ({os.strerror(error.errno or 0)})") from error
    os.unlink(probe)


def _refused(field: str, value: Any, error: OSError) -> UserError:
    return UserError(f"{field}={os.fspath(value)!r} cannot be written: {error.strerror or error}")
