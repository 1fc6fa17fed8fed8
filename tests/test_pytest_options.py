"""The root conftest.py: what skips, what fails, and that skipping is never taken for passing.

Each case runs pytest on a few tests in a folder of its own, with a stand-in for torch, so that it is the same on every
machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

@pytest.mark.gpu
def test_on_gpu(): pass

@pytest.mark.gpu
def test_on_gpu_without_a_library(): pytest.skip("no such library")

@pytest.mark.slow
def test_slow(): pass

def test_plain(): pass
"""
TORCH = """
class cuda:
    @staticmethod
    def is_available(): return {available}

class version:
    cuda = "13.0"
"""


@pytest.fixture
def outcome(root: Path, tmp_path: Path, monkeypatch):
    """Run pytest with options, with or without a device; return the exit code and the output."""
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(root / name, tmp_path / name)
    (tmp_path / "test_marks.py").write_text(TESTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # some import half the environment

    def run(*options: str, gpu: bool = False, what: str = "test_marks.py") -> tuple[int, str]:
        (tmp_path / "torch.py").write_text(TORCH.format(available=gpu))
        argv = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-p",
            "pytest_timeout",
            "-v",
            *options,
            what,
        ]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
        return done.returncode, done.stdout

    return run


def test_plain_run_skips_gpu_and_slow_tests(outcome):
    code, output = outcome()
    assert code == 0
    assert "1 passed, 3 skipped" in output
    assert "no CUDA device found" in output


@pytest.mark.parametrize("options", [["--slow"], ["-m", "slow"]])
def test_slow_tests_run_when_asked_for(outcome, options):
    code, output = outcome(*options)
    assert code == 0
    assert "test_slow PASSED" in output


def test_gpu_tests_run_where_there_is_a_device(outcome):
    code, output = outcome("-m", "gpu", "--require-gpu", gpu=True)
    assert code == 0
    assert "test_on_gpu PASSED" in output


def test_missing_device_fails_where_one_is_required(outcome):
    code, output = outcome("-m", "gpu", "--require-gpu")
    assert code == 1
    assert "--require-gpu: no CUDA device found" in output
    assert "passed" not in output


def test_run_that_skips_every_gpu_test_is_red(outcome):
    code, output = outcome("-k", "without_a_library", "--require-gpu", gpu=True)
    assert code == 1
    assert "no test marked gpu ran to its end" in output


def test_gpu_tests_of_workers_count_too(outcome):
    workers = ("-p", "xdist.plugin", "-n", "1")
    code, output = outcome("-m", "gpu", "--require-gpu", *workers, gpu=True)
    assert code == 0, output
    code, output = outcome("-k", "without_a_library", "--require-gpu", *workers, gpu=True)
    assert code == 1
    assert "no test marked gpu ran to its end" in output


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_folders_are_tested_by_workers_and_single_files_are_not(outcome):
    _, output = outcome("-p", "xdist.plugin", what=".")
    assert "created: " in output
    for options, what in (((), "test_marks.py"), (("-n", "0"), "."), (("-m", "gpu"), "."), (("--pdb",), ".")):
        _, output = outcome("-p", "xdist.plugin", *options, what=what)
        assert "created: " not in output
