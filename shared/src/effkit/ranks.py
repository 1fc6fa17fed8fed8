"""Which of a job's processes this one is, and what it tells the one that started it. No torch: help asks this too.

A process believes a number only where the launcher that sets it has left its other traces: a ``RANK`` exported in a
shell and forgotten belongs to no job.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "RANK_VARIABLES",
    "REPORTS",
    "RankReport",
    "agents_store",
    "believed_ranks",
    "failed_elsewhere",
    "is_main_rank",
    "lost_connection",
    "process_number",
    "read_report",
    "report_failure",
    "report_ready",
    "started_by_first_rank",
    "started_with_others",
]

# Lightning sets these in the process that starts the other ranks, and takes them for an outer launcher the next time.
RANK_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_BEGUN = time.time()
_FAILED = "effkit/failed"
CLOCKS = 1.0
"""Seconds by which the clocks of two machines may differ."""
REPORTS = "EFFKIT_RANKS"
"""Names the folder in which the ranks that the first has started tell how they fare."""


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


def process_number() -> int:
    """A number that no other process of the distributed job has, 0 in the first and where there is no job.

    It is the rank where ``torch.distributed`` runs; a loader's worker has it from the environment of its parent.
    """
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    believed = believed_ranks()
    for name in ("RANK", "SLURM_PROCID"):
        if name in believed:
            return _number(name)
    if "LOCAL_RANK" in believed:  # Lightning's own: the number of processes a node is not told
        return _number("NODE_RANK") << 16 | _number("LOCAL_RANK")
    return 0


def started_by_first_rank() -> bool:
    """Whether Lightning in the first rank started this process."""
    if "TORCHELASTIC_RUN_ID" in os.environ or "LOCAL_RANK" not in believed_ranks():
        return False
    return _number("LOCAL_RANK") != 0


def started_with_others() -> str:
    """Name of the launcher that started this process as one of several (torchrun, srun), empty if there is none."""
    if "TORCHELASTIC_RUN_ID" in os.environ and _number("WORLD_SIZE", 1) > 1:
        return "torchrun"
    return "srun" if _number("SLURM_STEP_NUM_TASKS", 1) > 1 else ""


# --- what a rank tells the first --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RankReport:
    """How a rank failed.

    Args:
        line: Its error in one line.
        trace: The traceback of a crash, else empty.
        lost: Whether it only lost the connection to another, which is then to blame.
    """

    line: str
    trace: str = ""
    lost: bool = False


def report_ready() -> None:
    """Tell the first rank that this one has come to where all of them meet."""
    if (file := _file("ready")) is not None:
        file.touch()


def report_failure(report: RankReport) -> bool:
    """Tell the first rank why this one ends; `False` if that is no process that reads it aloud."""
    if (file := _file("json")) is None:
        if not report.lost and (store := agents_store()) is not None:
            told = {"rank": process_number(), "host": platform.node(), "line": report.line, "at": time.time()}
            with contextlib.suppress(RuntimeError):
                store.set(_FAILED, json.dumps(told))
        return False
    temporary = file.with_suffix(".tmp")
    try:
        temporary.write_text(json.dumps(vars(report)), encoding="utf-8")
        os.replace(temporary, file)
    except OSError:
        return False
    return True


def read_report(folder: Path, rank: int) -> RankReport | None:
    """What a rank has told; `None` if it could not tell anything any more."""
    try:
        return RankReport(**json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def agents_store(seconds: float = 5.0, *, opens: bool = False) -> Any:
    """The store where workers of torchrun find each other; `None` if there is none, or it is gone.

    The agents keep it. With ``TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1`` they only name a place, and the first worker does.

    Args:
        seconds: How long to try, and to wait for an answer.
        opens: This is the first worker, which keeps it where the agents do not.
    """
    if "RANK" not in believed_ranks() or "torch" not in sys.modules:
        return None
    from datetime import timedelta

    from torch.distributed import TCPStore

    opens = opens and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    wait = timedelta(seconds=seconds)
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        return TCPStore(address, port, is_master=opens, timeout=wait, wait_for_workers=False)
    except (KeyError, ValueError, RuntimeError):
        return None


def failed_elsewhere(store: Any) -> str:
    """Which rank has failed since this process began, and why, in one line; empty if none has told."""
    try:
        if store is None or not store.check([_FAILED]):
            return ""
        told = json.loads(store.get(_FAILED))
    except (RuntimeError, ValueError):
        return ""
    if told["at"] < _BEGUN - CLOCKS:  # of an earlier attempt
        return ""
    return f"rank {told['rank']} on {told['host']} failed: {told['line']}"


def lost_connection(error: BaseException) -> bool:
    """Whether an exception says that another process of the job does not answer any more."""
    names = {c.__name__ for c in type(error).__mro__}
    if names & {"DistBackendError", "DistNetworkError"}:
        return True
    marks = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL")
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in marks)


def _file(suffix: str) -> Path | None:
    folder = os.environ.get(REPORTS)
    if not folder or not started_by_first_rank() or not os.path.isdir(folder):
        return None
    return Path(folder) / f"{_number('LOCAL_RANK')}.{suffix}"


def _number(name: str, default: int = 0) -> int:
    try:
        return int(os.environ.get(name) or default)
    except ValueError:
        return default
