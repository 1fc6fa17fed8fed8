"""The processes of a distributed job stand and fall together, and one line says which of them fell.

Lightning's own observer kills the first process when another one ends: nothing is left of the job but a status that
says "running". Where that process is found dead first, a hundred lines of a broken connection say so. Here the first
process learns which rank ended and why, and ends like any command that failed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from effkit.errors import RankFailed
from effkit.lightning.elastic import meet
from effkit.lightning.resume import how_to_go_on
from effkit.ranks import REPORTS, agents_store, failed_elsewhere, lost_connection, read_report, report_ready
from effkit.stopping import current, end_now, heard, name_of

__all__ = ["RankLauncher", "own_ranks", "together"]

POLL = 0.1
PATIENCE = 3.0
"""Seconds for the first process to notice by itself that a rank is gone: its next exchange with it fails."""
STUCK = 20.0
"""Seconds until a process that sits in a library, where neither signals nor exceptions reach it, is ended."""
_TOLD = {128 + s for s in (signal.SIGINT, signal.SIGTERM)} | {-signal.SIGINT, -signal.SIGTERM}


class _Fallen(BaseException):
    """Raised in the main thread by the one that watches: a rank is gone."""


class _NoSignals(_SignalConnector):
    """Lightning's handlers for SIGTERM and SLURM's warnings exchange data between the ranks inside a handler.

    Ours (``effkit.stopping``) are in force instead; see ``effkit.lightning.stepping``.
    """

    def register_signal_handlers(self) -> None:
        """Leave them as they are."""
        self.received_sigterm = False


class Team:
    """The ranks that this process has started.

    Args:
        folder: Where they report.
        processes: Rank ``i`` is number ``i - 1``.
        first: Number of the first rank of this node.
    """

    def __init__(self, folder: Path, processes: list[subprocess.Popen[bytes]], first: int) -> None:
        self.folder, self.processes, self.first = folder, processes, first
        self.fallen: RankFailed | None = None
        self.noticed = threading.Event()  # the main thread has left what all ranks do together, by an exception
        self.over = threading.Event()  # and cleaned up behind it
        self._lock = threading.Lock()
        self._main = threading.get_ident()

    # --- who fell -------------------------------------------------------------------------------------------------

    def look(self) -> RankFailed | None:
        """Find out whether a rank has ended that should not have, and which was the first cause."""
        with self._lock:
            if self.fallen is None and self._dead():
                deadline = time.monotonic() + 2
                while self._only_lost() and time.monotonic() < deadline:  # the one they have lost is still dying
                    time.sleep(POLL)
                self.fallen = self._verdict()
            return self.fallen

    def _dead(self) -> list[tuple[int, int]]:
        """Number on this machine and exit code of those that have failed, or have told that they do."""
        found = []
        for local, process in enumerate(self.processes, 1):
            code = process.poll()
            if code is None and read_report(self.folder, local) is not None:
                code = 1
            if code:
                found.append((local, code))
        return found

    def _only_lost(self) -> bool:
        return all((r := read_report(self.folder, local)) is not None and r.lost for local, _ in self._dead())

    def _verdict(self) -> RankFailed:
        dead = [(local, code, read_report(self.folder, local)) for local, code in self._dead()]
        dead.sort(key=lambda found: (found[1] > 0, found[2] is not None and found[2].lost, found[0]))
        local, code, report = dead[0]
        rank, after = self.first + local, how_to_go_on(_NOW.folder)
        if code in _TOLD and report is None:
            name = name_of(code - 128 if code > 0 else -code)
            return RankFailed(f"rank {rank} was told to stop by {name}{after}", interrupted=True)
        if code < 0:
            memory = " (by hand, or because the memory was full)" if code == -signal.SIGKILL else ""
            return RankFailed(f"rank {rank} was killed by {name_of(-code)}{memory}{after}")
        why = f"failed: {report.line}" if report is not None else f"ended with exit code {code}"
        return RankFailed(f"rank {rank} {why}{after}", report.trace if report is not None else "")

    # --- watching -------------------------------------------------------------------------------------------------

    def wait_until_ready(self) -> None:
        """Wait for all to come to where they meet; in Python, where signals are heard.

        Raises:
            RankFailed: If one of them ends before.
        """
        waiting = set(range(1, len(self.processes) + 1))
        while waiting:
            waiting = {local for local in waiting if not (self.folder / f"{local}.ready").exists()}
            if self._dead():
                raise self.look() or AssertionError
            time.sleep(POLL)

    def watch(self) -> None:
        """Start the thread that watches."""
        threading.Thread(target=self._run, daemon=True, name="effkit-ranks").start()

    def _run(self) -> None:
        while not self.over.wait(POLL) and any(process.poll() is None for process in self.processes):
            if self.look() is not None:
                break
        if not self.over.is_set() and self.look() is not None:
            self._end()

    def _end(self) -> None:
        """End the others, then see to it that the main thread learns of it, wherever it is."""
        assert self.fallen is not None
        self.kill()
        if not self.noticed.wait(PATIENCE) and _NOW.inside:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._main), ctypes.py_object(_Fallen))
        if not self.over.wait(STUCK) and _NOW.inside:
            end_now("interrupted" if self.fallen.interrupted else "failed", str(self.fallen), 1)

    def kill(self) -> None:
        """End those that are left: they wait for one that will not answer."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()


@dataclass
class _Now:
    """What this process is doing: its team, the run folder, and whether it is where all ranks meet."""

    team: Team | None = None
    folder: Path | None = None
    inside: bool = False


_NOW = _Now()


class RankLauncher(_SubprocessScriptLauncher):
    """Starts the other ranks of this machine as Lightning does, and watches them."""

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Start them where that is not done, wait until they have come to the same place, and call the function."""
        try:
            if not self.cluster_environment.creates_processes_externally:
                self._start()
            return super().launch(function, *args, trainer=trainer, **kwargs)
        except BaseException:
            if _NOW.team is not None:
                _NOW.team.noticed.set()
            raise

    def _start(self) -> None:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        folder = Path(tempfile.mkdtemp(prefix="effkit-ranks-"))
        os.environ[REPORTS] = str(folder)  # goes with the job, see ``effkit.cli.process.ranks_released``
        self._call_children_scripts()
        team = _NOW.team = Team(folder, self.procs, self.cluster_environment.node_rank() * self.num_processes)
        team.wait_until_ready()
        team.watch()


def own_ranks(trainer: Trainer) -> None:
    """Let a trainer start and watch its ranks in our way, and leave signals alone."""
    trainer._signal_connector = _NoSignals(trainer)
    launcher = trainer.strategy.launcher
    if type(launcher) is _SubprocessScriptLauncher:
        trainer.strategy._launcher = RankLauncher(
            launcher.cluster_environment, launcher.num_processes, launcher.num_nodes
        )


@contextmanager
def together(trainer: Trainer, folder: Path | None) -> Iterator[None]:
    """Run what all ranks run; if one of them falls, the first says which.

    Args:
        trainer: Whose ranks they are.
        folder: The run folder, for the advice how to go on.

    Raises:
        RankFailed: In the first process, in place of what it raised because another one was gone.
    """
    report_ready()
    team = _NOW.team
    if team is not None and team.over.is_set():  # of an earlier job of this process
        team = _NOW.team = None
    before, _NOW.folder, _NOW.inside = _NOW.folder, folder, True
    try:
        with heard() if trainer.world_size > 1 else nullcontext():
            meet(trainer)
            yield
    except BaseException as error:
        if _NOW.team is not None:
            _NOW.team.noticed.set()
        stop = current()
        asked = stop is not None and stop.received is not None
        alone = trainer.world_size == 1
        fallen = None if asked or alone or trainer.global_rank else _blame(error, folder)
        if _NOW.team is not None:
            _NOW.team.over.set()
            _NOW.team.kill()
        if fallen is not None:
            raise fallen from None
        raise
    finally:
        _NOW.folder, _NOW.inside = before, False


def _blame(error: BaseException, folder: Path | None) -> RankFailed | None:
    """Find the rank that is behind an error of this process, if it is not its own."""
    if isinstance(error, RankFailed):
        return error
    lost, team = lost_connection(error), _NOW.team
    if team is not None and (lost or isinstance(error, _Fallen)):
        deadline = time.monotonic() + STUCK
        while (fallen := team.look()) is None and time.monotonic() < deadline:
            time.sleep(POLL)
        if fallen is not None:
            return fallen
    if not lost:
        return None
    told = failed_elsewhere(agents_store())
    first = " ".join(str(error).split("\n")[0].split())[:200]
    why = told or f"another process of the job is gone ({first}): its own output says why"
    return RankFailed(f"{why}{how_to_go_on(folder)}")
