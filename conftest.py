"""Options for every test of the workspace: ``--require-gpu`` and ``--slow``; and workers for whole folders.

Tests marked ``gpu`` skip where there is no CUDA device. A runner that promises one passes ``--require-gpu``: there a
missing device fails each of them, and a run in which not one of them came to its end fails too, because a GPU job that
skips everything must not be green. Tests marked ``slow`` run with ``--slow``, or when the ``-m`` expression names them.

Where only folders are asked for (``pytest``, ``pytest packages/tnt-vit``), one worker a core runs them, of one thread
each: the tests are too small to fill two cores with threads. ``-n`` decides otherwise (``-n 0``: none); single files,
``--pdb`` and tests on a GPU, which is one for all, stay in one process.
"""

from __future__ import annotations

import functools
import gc
import os
import re
import signal
from pathlib import Path

import pytest

_finished_on_gpu = pytest.StashKey[int]()

# More would not help: the longest single file takes a quarter of the whole, and each holds a torch of its own.
MAX_WORKERS = 4


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("effkit")
    group.addoption("--require-gpu", action="store_true", help="fail, not skip, tests marked gpu without CUDA")
    group.addoption("--slow", action="store_true", help="also run the tests marked slow")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Ask for one worker a core where whole folders are tested and nobody said otherwise, before xdist looks."""
    if getattr(config.option, "numprocesses", 0) is not None:  # chosen, or there is no xdist
        return
    if "PYTEST_XDIST_WORKER" in os.environ:  # a worker, or pytest started by a test in one: never workers of workers
        return
    alone = config.option.usepdb or config.option.collectonly or config.option.require_gpu
    folders = all(Path(config.invocation_params.dir, argument).is_dir() for argument in config.option.file_or_dir)
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, MAX_WORKERS)
    if alone or not folders or workers < 2 or re.search(r"\bgpu\b", config.option.markexpr):
        return
    config.option.numprocesses = workers
    config.option.dist = "worksteal"
    # Inherited by the workers, who import torch after this. Programs that tests start inherit it too.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


class _GpuCount:
    """Counts the GPU tests whose body ended in a verdict rather than in a skip; reports of workers arrive here too."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and not report.skipped and "gpu" in report.keywords:
            self.config.stash[_finished_on_gpu] += 1


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_finished_on_gpu] = 0
    config.pluginmanager.register(_GpuCount(config))
    # Started in the background or under nohup, this process ignores Ctrl-C and SIGHUP, and so would every program that
    # a test interrupts.
    for name, default in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)


def pytest_collection_finish() -> None:
    """Leave what is there now (torch, transformers, all tests) to later sweeps of the garbage collector no more."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let go of it: bindings that look for leaks at the end of the process would name all that is still held."""
    gc.unfreeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the slow tests unless they were asked for."""
    if config.getoption("--slow") or re.search(r"\bslow\b", config.option.markexpr):
        return
    skip = pytest.mark.skip(reason="slow: run with --slow")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)


@functools.cache
def _why_no_gpu() -> str:
    """Return why no CUDA device can be used, or "" if one can; torch is imported only where a GPU test asks."""
    try:
        import torch
    except ImportError as error:
        return f"torch cannot be imported: {error}"
    if torch.cuda.is_available():
        return ""
    return "torch is built without CUDA" if torch.version.cuda is None else "no CUDA device found"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail a test marked ``gpu`` where there is no device."""
    if item.get_closest_marker("gpu") and (reason := _why_no_gpu()):
        if item.config.getoption("--require-gpu"):
            pytest.fail(f"--require-gpu: {reason}", pytrace=False)
        pytest.skip(f"needs a GPU: {reason}")


def _green_by_skipping(config: pytest.Config) -> bool:
    """Whether GPU tests were required and not one of them came to its end."""
    if hasattr(config, "workerinput"):  # only the process that gets all reports can tell
        return False
    required = config.getoption("--require-gpu") and not config.getoption("collectonly")
    return bool(required) and config.stash[_finished_on_gpu] == 0


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn a run red that skipped every GPU test."""
    if exitstatus == pytest.ExitCode.OK and _green_by_skipping(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say why such a run is red although no test failed."""
    if _green_by_skipping(config):
        terminalreporter.write_line("--require-gpu: no test marked gpu ran to its end", red=True)
