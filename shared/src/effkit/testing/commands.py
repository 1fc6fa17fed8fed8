"""Console commands in a process of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from effkit.cli import App
from effkit.testing.named import assert_known_keys

if TYPE_CHECKING:
    import pytest

__all__ = ["CliResult", "in_process", "run_cli"]


class CliResult(NamedTuple):
    """What a command left behind; unpacks as ``code, stdout, stderr``."""

    code: int
    stdout: str
    stderr: str


def in_process(
    main: Callable[[list[str]], int], folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., CliResult]:
    """Run commands of a program in this process, inside a folder: the body of a test file's fixture ``run``.

    Args:
        main: The program, an `effkit.cli.App`.
        folder: Becomes the working folder.
        monkeypatch: pytest's fixture.
        capfd: pytest's fixture.

    Returns:
        A function of the words after the program's name; gives exit code, standard output and standard error. A mistake
        that is answered with a key which the command does not have fails the test.
    """
    monkeypatch.chdir(folder)

    def call(*words: str | os.PathLike[str]) -> CliResult:
        given = [os.fspath(word) for word in words]
        result = CliResult(main(given), *capfd.readouterr())
        if result.code == 2 and isinstance(main, App):
            assert_known_keys(main, given, result.stderr)
        return result

    return call


def run_cli(
    argv: Sequence[str | os.PathLike[str]],
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120.0,
) -> CliResult:
    """Run a console command in a process of its own, without a terminal, and wait for it.

    Args:
        argv: Command and arguments. A bare command name is looked up beside the running interpreter first, so that the
            environment under test is the one that answers; a name that is no command there is run as ``python -m
            NAME``.
        cwd: Working folder.
        env: Variables on top of the present ones; by default torch gets one thread and colours are off.
        timeout: Seconds after which the process is killed.

    Returns:
        Exit code (negative: killed by that signal), standard output and standard error.

    Raises:
        AssertionError: If it takes longer than ``timeout``; shows what it had printed.
    """
    first, *rest = [os.fspath(word) for word in argv]
    command = [first, *rest] if os.path.isabs(first) else [*_find_command(first), *rest]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**variables, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError(
            f"{' '.join(command)} took longer than {timeout:g} s; it had printed {error.stdout!r} and {error.stderr!r}"
        ) from error
    return CliResult(done.returncode, done.stdout, done.stderr)


def _find_command(name: str) -> list[str]:
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    return [beside] if beside else [sys.executable, "-m", name.replace("-", "_")]
