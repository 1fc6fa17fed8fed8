"""What a command line owes the process it runs in: signals, standard output, ranks of distributed jobs, log handlers.

Nothing here knows Hydra, Lightning or torch; they are only cleaned up after, when a command has loaded them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, TextIO

# Lightning sets these in the process that starts the other ranks, and takes them for an outer launcher the next time.
RANK_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised where the program was; clean-up written for Ctrl-C then runs for these as well."""


class Signals:
    """Which signal asked this process to stop; Lightning turns the exception itself into ``SystemExit(1)``."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.pid = os.getpid()

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Note the signal and raise in the main thread; a forked worker that is told to stop just stops."""
        if os.getpid() != self.pid and signum != signal.SIGINT:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
            return
        self.received = signum
        raise KeyboardInterrupt if signum == signal.SIGINT else Terminated

    @property
    def exit_code(self) -> int:
        """128 + signal, the shell's convention: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.received or signal.SIGINT)


@contextlib.contextmanager
def stop_signals() -> Iterator[Signals]:
    """Let Ctrl-C, SIGTERM and SIGHUP raise, except where the parent asked for them to be ignored (``nohup``).

    Ctrl-C reaches all processes of a terminal. The ranks that Lightning started leave it to the first, which ends them:
    if one of them stopped by itself, Lightning would kill the first before it could leave its run folder in order.
    """
    signals = Signals()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            signum = getattr(signal, name, None)  # Windows has no SIGHUP
            if signum is not None and signal.getsignal(signum) in (signal.SIG_DFL, signal.default_int_handler):
                ignored = name == "SIGINT" and _started_by_first_rank()
                before[signum] = signal.signal(signum, signal.SIG_IGN if ignored else signals)
    try:
        yield signals
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def stdout_to_stderr(restore: bool = True) -> Iterator[TextIO]:
    """Send all that is printed on standard output to standard error, at the level of the operating system too.

    Child processes and C libraries inherit the redirection.

    Args:
        restore: Whether standard output comes back afterwards. A program that is about to end leaves it away, so that
            whatever an exit handler prints does not follow the document either.

    Yields:
        The real standard output, to write the one document to.
    """
    python_stdout = sys.stdout
    python_stdout.flush()
    real, document = os.dup(1), python_stdout
    with contextlib.suppress(OSError, ValueError):  # in a notebook sys.stdout is something else, without a number
        if python_stdout.fileno() == 1:
            document = os.fdopen(os.dup(1), "w", encoding=python_stdout.encoding, errors=python_stdout.errors)
    sys.stdout = sys.stderr
    os.dup2(2, 1)
    try:
        yield document
        document.flush()
    finally:
        _flush_c_stdout()  # what a C library still holds back belongs to standard error as well
        if restore:
            if document is not python_stdout:
                python_stdout.flush()
            os.dup2(real, 1)
            sys.stdout = python_stdout
        os.close(real)
        if document is not python_stdout:
            with contextlib.suppress(BrokenPipeError):
                document.close()


def _flush_c_stdout() -> None:
    import ctypes

    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)


def is_main_rank() -> bool:
    """Whether this process is the first of a distributed job (or the only one): it alone prints and writes results."""
    return not any(_number(name) for name in believed_ranks())


def believed_ranks() -> set[str]:
    """Names of the variables that tell ranks because a launcher set them.

    A ``RANK`` that was exported in a shell and forgotten is not among them: no launcher sets it alone.
    """
    names: set[str] = set()
    if "TORCHELASTIC_RUN_ID" in os.environ and _number("WORLD_SIZE", 1) > 1:
        names |= {"RANK", "LOCAL_RANK", "GROUP_RANK"}
    if os.environ.get("MASTER_ADDR") and os.environ.get("MASTER_PORT"):  # Lightning, or set by hand for it
        names |= {"LOCAL_RANK", "NODE_RANK"}
    if max(_number("SLURM_NTASKS", 1), _number("SLURM_STEP_NUM_TASKS", 1)) > 1:
        names.add("SLURM_PROCID")
    return names


def _number(name: str, default: int = 0) -> int:
    try:
        return int(os.environ.get(name) or default)
    except ValueError:
        return default


def _started_by_first_rank() -> bool:
    if "TORCHELASTIC_RUN_ID" in os.environ or "LOCAL_RANK" not in believed_ranks():
        return False
    return _number("LOCAL_RANK") != 0


def die_with_first_rank() -> None:
    """Let Linux end a rank that Lightning started when the first is gone, however it went.

    After ``kill -9`` of the first it would otherwise wait for it in a collective, with its memory on the GPU.
    """
    if sys.platform == "linux" and _started_by_first_rank():
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def started_with_others() -> str:
    """Name of the launcher that started this process as one of several (torchrun, srun), empty if there is none."""
    if "TORCHELASTIC_RUN_ID" in os.environ and _number("WORLD_SIZE", 1) > 1:
        return "torchrun"
    return "srun" if _number("SLURM_STEP_NUM_TASKS", 1) > 1 else ""


@contextlib.contextmanager
def ranks_released() -> Iterator[None]:
    """Undo what a distributed job leaves behind, so that the next job of a sweep can start ranks of its own.

    Inside, ranks that no launcher set are gone: Lightning would believe them, and write and print nothing.
    """
    ranks = {"RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"}
    before = {name: os.environ.get(name) for name in {*RANK_VARIABLES, *ranks}}
    for name in ranks - believed_ranks():
        os.environ.pop(name, None)
    try:
        yield
    finally:
        distributed = sys.modules.get("torch.distributed")
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def rerunnable_as(script: str, module: str | None, arguments: list[str]) -> Iterator[None]:
    """Make this process look like ``script arguments`` (or ``python -m module arguments``).

    Lightning starts the other ranks of a job by running the command line of the first again. By then our parser has
    consumed it, a sweep has turned it into one of many jobs, and in a worker of a launcher it is the worker's.
    """
    main = sys.modules["__main__"]
    argv, spec = sys.argv, main.__spec__
    sys.argv = [script, *arguments]
    if (spec.name if spec is not None else None) != module:
        main.__spec__ = importlib.util.find_spec(module) if module is not None else None
    try:
        yield
    finally:
        sys.argv, main.__spec__ = argv, spec


@contextlib.contextmanager
def log_handlers_restored() -> Iterator[None]:
    """Put the root logger back as it was and close the run's log file."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


def quiet_console() -> None:
    """Let only warnings of this process through to the terminal; the log file keeps everything."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.WARNING)


def log_to_file(text: str) -> None:
    """Append to the run's log file what the terminal is told by other means."""
    record = logging.LogRecord("effkit", logging.ERROR, __file__, 0, text, None, None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
