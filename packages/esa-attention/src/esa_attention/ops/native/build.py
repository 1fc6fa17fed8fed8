"""Compiling a C source once for a machine, with the user's compiler, and loading what came out.

As Triton and inductor do: the result lies in a folder of the user's, named by all that decides it, and later processes
load it. Where there is no compiler, or it fails, the forms in torch are taken and ``doctor`` says why.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["library"]

_SOURCES = Path(__file__).parent
_FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-fPIC")
# Lines of /proc/cpuinfo, of x86 and of ARM; others, such as the clock's rate, change by the minute.
_DECIDES = ("vendor_id", "cpu family", "model", "flags", "CPU", "Features")
_SECONDS = 60  # after which a compiler that does not end is given up


@functools.cache
def library(name: str, per_word: int = 1) -> ctypes.CDLL:
    """The functions of a source for numbers of which so many fill 32 bits.

    Args:
        name: ``decode`` or ``select``.
        per_word: 1 (float32), 2 (bfloat16) or 4 (int8).

    Raises:
        NotImplementedError: If it cannot be had here; in one line, why.
    """
    found = _outcome(name, per_word)
    if isinstance(found, str):
        raise NotImplementedError(found)
    return found


@functools.cache
def _outcome(name: str, per_word: int) -> ctypes.CDLL | str:
    """The functions or why there are none: a failure is remembered as well, and nothing tried twice.

    What can fail: reading and writing, loading, the compiler, and a ``CC`` whose quotes do not end (``ValueError``).
    """
    try:
        return _load(name, per_word)
    except (OSError, ValueError, subprocess.SubprocessError, NotImplementedError) as error:
        return str(error).strip().splitlines()[0]


def _load(name: str, per_word: int) -> ctypes.CDLL:
    if os.name != "posix" or sys.byteorder != "little":
        raise NotImplementedError("only compiled on Linux and macOS, of machines that keep the low byte first")
    compiler = _compiler()
    where = _folder()
    if where is None:  # nobody else's place is trusted with code, and without one of ours it is made for this process
        with tempfile.TemporaryDirectory() as folder:
            return ctypes.CDLL(str(_compiled(compiler, name, per_word, Path(folder) / f"{name}.so")))
    file = where / f"{name}-{_key(compiler, name, per_word)}.so"
    if file.is_file():
        try:
            return ctypes.CDLL(str(file))
        except OSError:
            pass  # broken, or of a system that was changed since
    return ctypes.CDLL(str(_compiled(compiler, name, per_word, file)))


def _compiler() -> list[str]:
    """The C compiler as a command: what ``CC`` names, else the system's; an empty ``CC`` is a wish for none."""
    named = os.environ.get("CC")
    if named is not None:
        command = shlex.split(named)
        if not command:
            raise NotImplementedError("CC is empty: no compiler is wanted")
        if shutil.which(command[0]) is None:
            raise NotImplementedError(f"the compiler that CC names, {command[0]}, is not there")
        return command
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    raise NotImplementedError("no C compiler was found (cc, gcc, clang; CC names another)")


def _folder() -> Path | None:
    """The folder of what was compiled, which nobody else may write to; ``None`` if it cannot be had."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(base) if base else Path.home() / ".cache") / "esa-attention"
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        about = folder.stat()
    except (OSError, RuntimeError):
        return None
    others = about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return folder if about.st_uid == os.getuid() and not others and os.access(folder, os.W_OK) else None


def _key(compiler: list[str], name: str, per_word: int) -> str:
    """By all that decides what is compiled: a folder may be shared by machines of several kinds."""
    path = Path(shutil.which(compiler[0]) or compiler[0]).resolve()
    about = path.stat()
    decides = [*compiler, str(path), about.st_size, about.st_mtime_ns, *_FLAGS, per_word, _processor()]
    digest = hashlib.sha256(repr(decides).encode() + (_SOURCES / f"{name}.c").read_bytes())
    return digest.hexdigest()[:32]


def _processor() -> str:
    """What ``-march=native`` looks at."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        return "\n".join(line for line in lines if line.startswith(_DECIDES))
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.version()}"


def _compiled(compiler: list[str], name: str, per_word: int, file: Path) -> Path:
    """Compile to a file, which is there whole or not at all.

    The object is compiled with OpenMP and linked without it, so that its threads come from the library that torch has
    loaded: a second one beside it would start threads of its own.
    """
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made, linked = f"{folder}/{name}.o", f"{folder}/{name}.so"
        _run([*compiler, *_FLAGS, f"-DPER_WORD={per_word}", "-c", str(_SOURCES / f"{name}.c"), "-o", made])
        _run([*compiler, "-shared", made, "-o", linked])
        os.replace(linked, file)
    return file


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), f"status {done.returncode}")
        raise NotImplementedError(f"{Path(command[0]).name} failed: {said.strip()}")
