"""SLURM: whether it is there, what it says of a job, and submitting from inside another job.

submitit asks `sacct`, which needs job accounting; without it each look prints two warnings, and a job that is gone
without a result is waited for without end. The queue itself (`squeue`) is there on every cluster.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from effkit.errors import UserError

__all__ = ["PATIENCE", "check_slurm", "outside_a_job", "squeue", "state_in_words", "watch_queue"]

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds that SLURM has to answer."""
# A job in one of these states is not put into the queue again by SLURM itself.
_FINAL = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "TIMEOUT", "GONE")
_WORDS = {
    "CANCELLED": "cancelled",
    "COMPLETED": "ended without a result",
    "FAILED": "ended with an error",
    "GONE": "left the queue without a result",
    "NODE_FAIL": "lost its node",
    "OUT_OF_MEMORY": "killed because its memory was full",
    "PREEMPTED": "preempted",
    "TIMEOUT": "ended at its time limit",
}


def check_slurm(what: str) -> None:
    """Refuse to submit where SLURM is not installed or does not answer.

    Args:
        what: What asks, as the user wrote it: ``"hydra/launcher=slurm"``.

    Raises:
        UserError: In either case.
    """
    for program in ("sbatch", "srun", "squeue"):
        if shutil.which(program) is None:
            raise UserError(f"{what}: {program} is not on the path: start this on a node of the cluster where SLURM is")
    try:
        asked = ["squeue", "--noheader", "--jobs=1"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=PATIENCE, check=False)
        # Job 1 need not be known any more: that is an answer too.
        said = "" if done.returncode == 0 or "Invalid job id" in done.stderr else _last(done.stderr)
    except subprocess.TimeoutExpired:
        said = "it does not answer"
    if said:
        raise UserError(f"{what}: no SLURM cluster answers within {PATIENCE:.0f} s ({said})")


def squeue(jobs: set[str]) -> dict[str, str] | None:
    """Ask the queue for the states of jobs, of their array's tasks one by one; those it does not know are left out.

    Args:
        jobs: Numbers of jobs, with or without that of a task: ``"12"``, ``"12_3"``.

    Returns:
        State by number, in SLURM's words (``PENDING``); ``None`` if the queue did not answer.
    """
    numbers = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    asked = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={numbers}", "--format=%i %T"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0 and "Invalid job id" not in done.stderr:
        return None
    return {job: state for job, _, state in (line.strip().partition(" ") for line in done.stdout.splitlines())}


def state_in_words(state: str) -> str:
    """What a state means to whoever waits for the job: ``"ended at its time limit"``."""
    return _WORDS.get(state, f"in the state {state}" if state else "not known to the queue")


def watch_queue() -> Any:
    """Let submitit ask the queue and not the accounting, in this process from now on; returns its watcher."""
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    class Queue(SlurmInfoWatcher):
        """Asks `squeue` after 2, 4, 8, ... seconds, then every minute. A job it does not know any more is done."""

        from_queue = True

        def __init__(self) -> None:
            super().__init__(delay_s=60)
            self.missed: dict[str, int] = {}  # how often in a row, by job

        def update(self) -> None:
            """Ask once for all jobs that are not done."""
            asked = self._registered - self._finished
            found = squeue(asked) if asked else {}
            self._num_calls += 1
            self._last_status_check = time.time()
            if found is None:
                log.warning("SLURM does not answer; its jobs go on, and are asked for again")
                return
            for job in asked:
                self.missed[job] = 0 if job in found else self.missed.get(job, 0) + 1
                # A job that is being put back into the queue may be missing in one answer.
                state = found.get(job) or ("GONE" if self.missed[job] > 1 else "")
                if state:
                    self._info_dict[job] = {"JobID": job, "State": state}
                if self.is_done(job, mode="cache"):
                    self._finished.add(job)

        def is_done(self, job_id: str, mode: str = "standard") -> bool:
            """Whether it has ended for good."""
            return self.get_state(job_id, mode=mode).upper().startswith(_FINAL)

    if not getattr(SlurmJob.watcher, "from_queue", False):
        SlurmJob.watcher = Queue()
    return SlurmJob.watcher


@contextlib.contextmanager
def outside_a_job() -> Iterator[None]:
    """Hide the job that this process may be part of: what is submitted inside the block inherits nothing of it.

    Where SLURM finds its configuration, and what the user sets for `sbatch`, stays.
    """
    kept = {"SLURM_CONF"}
    mine = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")
    hidden = {name: value for name, value in os.environ.items() if name.startswith(mine) and name not in kept}
    if "SLURM_JOB_ID" not in hidden:
        yield
        return
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("squeue: error: ") if lines else "no reason given"
