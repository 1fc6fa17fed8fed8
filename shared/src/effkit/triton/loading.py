"""The one loader of kernel files: compiled, interpreted, or absent."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import threading
from pathlib import Path
from types import ModuleType

from effkit.errors import UserError

__all__ = ["ABSENT", "HAS_TRITON", "device_functions", "installed", "interpreted", "kernels", "power_of_two"]

HAS_TRITON = importlib.util.find_spec("triton") is not None  # ask installed(), which a test can make say no
ABSENT = "backend='triton' needs the package triton, which is not installed; use backend='torch'"

_loaded: dict[tuple[str, str, bool], ModuleType] = {}
_loading = threading.RLock()  # a file executed twice would give two kernels, each compiled anew


def installed() -> bool:
    """Whether there is triton on this machine."""
    return HAS_TRITON


def interpreted() -> bool:
    """Whether triton is told to interpret kernels on the CPU (read the way triton reads it)."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def power_of_two(n: int, least: int = 1) -> int:
    """The smallest power of two that is at least ``n`` and ``least``."""
    return max(1 << max(n - 1, 0).bit_length(), least)


def kernels(home: str | os.PathLike[str], name: str) -> ModuleType:
    """A kernel file, decorated for the mode in force; for kernels and for what they call.

    Args:
        home: The package that has the file, mostly ``__package__`` (kernel files can say that too), or a folder.
        name: Name of the file without ``.py``.

    Returns:
        The file as a module, executed once for each mode.

    Raises:
        UserError: Without triton.
        FileNotFoundError: If there is no such file.

    Example:
        >>> kernels("effkit.triton", "common_kernel").add  # doctest: +SKIP
    """
    key = os.fspath(home), name, interpreted()
    module = _loaded.get(key)
    if module is None:
        if not installed():
            raise UserError(ABSENT)
        with _loading:
            module = _loaded.get(key) or _loaded.setdefault(key, _execute(home, name, key[2]))
    return module


def device_functions() -> ModuleType:
    """The core's device functions, :mod:`effkit.triton.common_kernel`, for the mode in force."""
    return kernels("effkit.triton", "common_kernel")


def _execute(home: str | os.PathLike[str], name: str, interpret: bool) -> ModuleType:
    if isinstance(home, str):
        package, folder = home, Path(importlib.import_module(home).__path__[0])
    else:  # triton keys its cache by module and name, so each folder has a module name of its own
        package, folder = f"kernels_{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}", Path(home)
    file = folder / f"{name}.py"
    if not file.is_file():
        raise FileNotFoundError(f"{os.fspath(home)} has no kernel file {file.name}")
    full_name = f"{package}._{name}_{'interpreted' if interpret else 'compiled'}"
    spec = importlib.util.spec_from_file_location(full_name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module
    try:
        if not interpret:
            _complete_triton()
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[full_name]
        raise
    return module


def _complete_triton() -> None:
    """Import what triton's compiler imports at its first use, in the mode that triton itself was imported in.

    Triton decorates its own functions at import. If that was to be interpreted, ``triton.experimental.gluon``, which
    decorates them again, refuses to be imported by a process that compiles now.
    """
    import triton

    if isinstance(triton.language.standard.cdiv, triton.JITFunction):
        return
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        importlib.import_module("triton.experimental.gluon")
    finally:
        if before is None:
            del os.environ["TRITON_INTERPRET"]
        else:
            os.environ["TRITON_INTERPRET"] = before
