"""Where a figure comes from: commit, machine, versions and date, without host names or paths."""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

__all__ = ["commit_hash", "cpu_name", "driver_version", "now", "package_version"]


def now() -> str:
    """Now as ISO 8601 in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def package_version(distribution: str) -> str:
    """Installed version of a distribution, "" if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


@functools.cache
def commit_hash(file: str = __file__) -> str:
    """Short hash of the commit a source file is run from, with "-dirty" if tracked files differ from it.

    Empty where git is missing or the file is not tracked: a wheel inside somebody's project must not be reported under
    the commit of that project.
    """
    path = Path(file).resolve()
    if not _git(path.parent, "ls-files", "--", path.name):
        return ""
    commit = _git(path.parent, "rev-parse", "--short=10", "HEAD")
    if not commit:
        return ""
    return commit + ("-dirty" if _git(path.parent, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(
            ["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=20, check=True
        )
        return answer.stdout.strip()
    return ""


@functools.cache
def cpu_name() -> str:
    """Model name of the CPU; the architecture if the system hides it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]  # macOS
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return platform.machine()


@functools.cache
def driver_version() -> str:
    """Version of the NVIDIA driver, "" without one."""
    with contextlib.suppress(OSError):
        for word in Path("/proc/driver/nvidia/version").read_text().split():
            if word[0].isdigit() and word.count(".") >= 1:
                return word
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return answer.split()[0] if answer.split() else ""
    return ""
