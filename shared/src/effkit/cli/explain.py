"""Which exceptions of a running command are the user's mistakes, and the one line each of them gets.

Everything else is a bug of ours or of a library and keeps its traceback.
"""

from __future__ import annotations

import dis
import errno
import os
from collections.abc import Iterable

from effkit.errors import UserError
from effkit.executors.errors import TaskError

# Errors of the operating system that say something about a path the user gave, or about their disk.
_ERRNO_NAMES = (
    *("EACCES", "EPERM", "ENOENT", "ENOTDIR", "EISDIR", "EEXIST", "ENOTEMPTY", "ELOOP", "ENAMETOOLONG"),
    *("EROFS", "ENOSPC", "EDQUOT", "EFBIG", "EIO", "ESTALE", "EMFILE", "ENFILE"),
)
_ERRNOS = {getattr(errno, name) for name in _ERRNO_NAMES if hasattr(errno, name)}
_ADVICE = {
    "EFBIG": "the file system or `ulimit -f` allows no larger file",
    "EMFILE": "`ulimit -n` says how many a process may open: raise it, or use fewer workers",
}
# Values given on the command line that do not fit, or ${...} that leads nowhere; other OmegaConf errors are our bugs.
_OMEGACONF_MISTAKES = {
    "omegaconf.ConfigCycleDetectedException",
    "omegaconf.GrammarParseError",
    "omegaconf.InterpolationResolutionError",
    "omegaconf.ValidationError",
}


def debugging() -> bool:
    """Whether ``EFFKIT_DEBUG=1`` asks for the traceback of every error."""
    return os.environ.get("EFFKIT_DEBUG", "0") not in ("", "0")


def one_line(text: object) -> str:
    """Squeeze a message of several lines into one, without Hydra's pointers to its manual."""
    kept = [line for line in str(text).splitlines() if not line.strip().startswith("See https://hydra.cc")]
    return " ".join(" ".join(kept).split())


def explain(error: BaseException, packages: Iterable[str]) -> str | None:
    """Say in one line what the user did wrong.

    Args:
        error: What was raised.
        packages: Packages whose ``raise ValueError`` statements are meant for the user (ours).

    Returns:
        The line, or `None` if this is no mistake of the user.
    """
    if isinstance(error, (UserError, TaskError)):  # a task's own traceback is in the log
        return one_line(error)
    # By name: a command that never imported Hydra, OmegaConf or Lightning cannot have raised their exceptions.
    names = {f"{c.__module__.split('.')[0]}.{c.__name__}" for c in type(error).__mro__}
    if "hydra.InstantiationException" in names:
        cause = error.__cause__
        return explain(cause, packages) if cause is not None else one_line(error)
    if "hydra.HydraException" in names:
        return one_line(error) or one_line(error.__cause__)
    if "omegaconf.MissingMandatoryValue" in names:
        return f"{_full_key(error)} must be given: {_full_key(error)}=..."
    if names & _OMEGACONF_MISTAKES:
        key = _full_key(error)
        return one_line(str(error).split("full_key:")[0]) + (f" ({key})" if key else "")
    if "lightning.MisconfigurationException" in names:
        return one_line(error)
    if isinstance(error, OSError):
        return _explain_os_error(error)
    if isinstance(error, ValueError):
        if raised_by(error, tuple(packages)):
            return one_line(error)
        if isinstance(error.__cause__, OSError):  # logging: "Unable to configure handler 'file'"
            return _explain_os_error(error.__cause__)
    return None


def _full_key(error: BaseException) -> str:
    return str(getattr(error, "full_key", None) or getattr(error, "key", None) or "")


def _explain_os_error(error: OSError) -> str | None:
    if isinstance(error, (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)):
        pass
    elif error.errno not in _ERRNOS:
        return None
    advice = next((f"; {words}" for name, words in _ADVICE.items() if error.errno == getattr(errno, name, None)), "")
    if error.filename is None or error.strerror is None:
        return one_line(error) + advice
    name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else str(error.filename)
    return f"{error.strerror}: {name!r}{advice}"


def raised_by(error: BaseException, packages: tuple[str, ...]) -> bool:
    """Whether a ``raise`` statement of one of the packages raised it.

    ``int("x")`` or ``a, b = 1, 2, 3`` in our code raises ValueError as well, and is a bug of ours, not a message.
    """
    traceback = error.__traceback__
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = traceback.tb_frame.f_globals.get("__name__", "")
    if module.split(".")[0] not in packages:
        return False
    return dis.opname[traceback.tb_frame.f_code.co_code[traceback.tb_lasti]] == "RAISE_VARARGS"
