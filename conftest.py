"""Options for every test of the workspace: ``--require-gpu`` and ``--slow``.

Tests marked ``gpu`` skip where there is no CUDA device. A runner that promises one passes ``--require-gpu``: there a
missing device fails each of them, and a run in which not one of them came to its end fails too, because a GPU job that
skips everything must not be green. Tests marked ``slow`` run with ``--slow``, or when the ``-m`` expression names them.
"""

from __future__ import annotations

import functools
import re
import signal

import pytest

_finished_on_gpu = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("effkit")
    group.addoption("--require-gpu", action="store_true", help="fail, not skip, tests marked gpu without CUDA")
    group.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_finished_on_gpu] = 0
    # Started in the background or under nohup, this process ignores Ctrl-C and SIGHUP, and so would every program that
    # a test interrupts.
    for name, default in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Count the GPU tests whose body ended in a verdict rather than in a skip."""
    report = yield
    if report.when == "call" and not report.skipped and item.get_closest_marker("gpu"):
        item.config.stash[_finished_on_gpu] += 1
    return report


def _green_by_skipping(config: pytest.Config) -> bool:
    """Whether GPU tests were required and not one of them came to its end."""
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
