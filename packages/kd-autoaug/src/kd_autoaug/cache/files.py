"""The files of a cache on disk: made whole or not at all, checked, and written in an order that survives a kill."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from effkit.errors import UserError
from kd_autoaug.cache.header import Header

__all__ = ["Arrays", "apart", "check_files", "flush", "make_folder", "never_left_empty", "open_arrays"]

Arrays = Mapping[str, np.memmap]
_UNITS = ("kB", "MB", "GB", "TB")


def make_folder(folder: Path, header: Header) -> None:
    """Make the folder of an empty cache, its space on disk reserved.

    Raises:
        UserError: If something is there already, or the disk has not enough room.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"cache.path={str(folder)!r} exists already: open it, or give another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if header.total_bytes > free:
        has, needs = apart(free, header.total_bytes)
        raise UserError(
            f"cache.path={str(folder)!r} has {has} free, the cache needs {needs}: "
            "take fewer views, a smaller k, or another disk"
        )
    # All of it under a temporary name, then renamed: nobody ever opens half a cache.
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for name, (kind, shape) in header.arrays().items():
            _reserve(temporary / name, kind.itemsize * int(np.prod(shape)))
        header.write(temporary)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except OSError as error:
        raise UserError(f"cache.path={str(folder)!r} cannot be made: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def never_left_empty(folder: Path | None) -> Iterator[None]:
    """Take away a cache that was made inside the block and holds nothing, if the block ends in an error.

    Args:
        folder: Of the cache; ``None``: there is none.
    """
    new = folder is not None and not folder.exists()
    try:
        yield
    except BaseException:
        done = None if folder is None or not new else folder / "done.bin"
        if done is not None and done.is_file() and not np.memmap(done, np.uint8, "r").any():
            shutil.rmtree(done.parent, ignore_errors=True)
        raise


def apart(*counts: int) -> list[str]:
    """Numbers of bytes in units that fit them, with as many digits as tell them apart."""
    for digits in (1, 2, 3):
        texts = [_in_unit(count, digits) for count in counts]
        if len(set(texts)) == len(set(counts)):
            return texts
    return [f"{count:,} bytes" for count in counts]


def _in_unit(count: int, digits: int) -> str:
    if count < 1000:
        return f"{count} bytes"
    power = min((len(str(count)) - 1) // 3, len(_UNITS))
    return f"{count / 1000**power:.{digits}f} {_UNITS[power - 1]}"


def _reserve(file: Path, size: int) -> None:
    """Make a file of zeros whose space is taken for good: a full disk must show now, not as a crash while writing."""
    with file.open("wb") as handle:
        handle.truncate(size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle.fileno(), 0, size)


def check_files(folder: Path, header: Header) -> None:
    """Refuse a folder whose files have not the sizes that the header says.

    Raises:
        UserError: For the first that has not.
    """
    for name, (kind, shape) in header.arrays().items():
        size = kind.itemsize * int(np.prod(shape))
        found = (folder / name).stat().st_size if (folder / name).is_file() else 0
        if found != size:
            raise UserError(f"the cache {str(folder)!r} is damaged: {name} has {found:,} bytes, expected {size:,}")


def open_arrays(folder: Path, header: Header, mode: str) -> Arrays:
    """Map the arrays into memory, for ``"read"`` or ``"readwrite"``."""
    access = {"read": "r", "readwrite": "r+"}[mode]
    return {
        name: np.memmap(folder / name, kind, access, shape=shape)  # type: ignore[call-overload]
        for name, (kind, shape) in header.arrays().items()
    }


def flush(arrays: Arrays, pending: set[int]) -> None:
    """Bring data to the disk, then mark its records done, and empty ``pending``.

    Args:
        arrays: From :func:`open_arrays`.
        pending: Records that were written, as sample * views + view.
    """
    if not pending:
        return
    for name, array in arrays.items():
        if name != "done.bin":
            array.flush()
    done = arrays["done.bin"]
    done.reshape(-1)[np.fromiter(pending, np.int64, len(pending))] = 1
    done.flush()
    pending.clear()
