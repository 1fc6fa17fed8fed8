"""What a command line owes the process it runs in: signals, standard output, ranks of distributed jobs, log handlers.

Nothing here knows Hydra, Lightning or torch; they are only cleaned up after, when a command has loaded them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TextIO

from effkit.ranks import RANK_VARIABLES, REPORTS, believed_ranks, started_by_first_rank
from effkit.stopping import STOP_SIGNALS, Stop, in_force


@contextlib.contextmanager
def stop_signals(over: bool = False) -> Iterator[Stop]:
    """Let Ctrl-C, SIGTERM and their like raise, except where the parent asked for them to be ignored (``nohup``).

    Ctrl-C reaches all processes of a terminal. The ranks that Lightning started leave it to the first, which ends them:
    if one of them stopped by itself, the first could not leave its run folder in order.

    Args:
        over: Also take signals that somebody else handles; their handlers are back after the block.
    """
    stop = Stop()
    before = stop.before
    if threading.current_thread() is threading.main_thread():
        for name in STOP_SIGNALS:
            signum = getattr(signal, name, None)  # Windows has few of them
            if signum is None:
                continue
            handler = signal.getsignal(signum)
            if handler in (signal.SIG_DFL, signal.default_int_handler) or (over and callable(handler)):
                ignored = name == "SIGINT" and started_by_first_rank()
                before[signum] = signal.signal(signum, signal.SIG_IGN if ignored else stop)
    try:
        with in_force(stop):
            yield stop
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


def end_with_starter() -> None:
    """Let Linux tell a rank that whoever started it is gone, however it went.

    After ``kill -9`` of the first rank those that Lightning started would wait for it in a collective, with their
    memory on the GPU: they are killed. A worker of torchrun's agent would train on beside the one that a new agent
    starts: it is asked to stop, and takes the others with it.
    """
    elastic = "TORCHELASTIC_RUN_ID" in os.environ
    if sys.platform == "linux" and (elastic or started_by_first_rank()):
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGTERM if elastic else signal.SIGKILL)  # PR_SET_PDEATHSIG


@contextlib.contextmanager
def ranks_released() -> Iterator[None]:
    """Undo what a distributed job leaves behind, so that the next job of a sweep can start ranks of its own.

    Inside, ranks that no launcher set are gone: Lightning would believe them, and write and print nothing.
    """
    ranks = {"RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"}
    before = {name: os.environ.get(name) for name in {*RANK_VARIABLES, *ranks}}
    for name in ranks - believed_ranks():
        os.environ.pop(name, None)
    if not started_by_first_rank():  # one that an enclosing job left, or a shell
        os.environ.pop(REPORTS, None)
    try:
        yield
    finally:
        distributed = sys.modules.get("torch.distributed")
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()
        if not started_by_first_rank() and (reports := os.environ.pop(REPORTS, None)):
            shutil.rmtree(reports, ignore_errors=True)
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
