"""``resume=auto``: a job that may be started more than once looks into its own folder first.

Unfinished: it goes on. Finished: it says so and stops. Empty: it begins. Another configuration is refused. It is the
default where a launcher starts a job again by itself: after a preemption, in the place of a worker or agent that died.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effkit.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from effkit.report import Report

__all__ = ["AUTO", "Decision", "decide", "fingerprint", "may_be_started_again"]

AUTO = "auto"
# What does not make another run: where it goes on, what it prints, how fast it is.
_FREE = ("resume", "resume_anyway", "overwrite", "format", "threads", "checkpoint_minutes")
_CHECKPOINTS = ("checkpoints/last.ckpt", "checkpoints/step.ckpt")


@dataclass(frozen=True)
class Decision:
    """What a job does with the folder that it finds.

    Args:
        what: In words.
        goes_on: Whether it continues the run there.
        finished: The ``status.json`` of a run there that is done; ``None`` if there is still something to do.
    """

    what: str
    goes_on: bool = False
    finished: dict[str, Any] | None = None

    def report(self, folder: Path, command: str) -> Report:
        """What a finished run said, as far as its folder tells."""
        from effkit.report import Report

        metrics = _read(folder / "metrics.json")
        code = int((self.finished or {}).get("exit_code") or 0)
        return Report(title=command, data=metrics, lines=[f"{folder} is finished: nothing to do"], exit_code=code)


def may_be_started_again(in_worker: bool) -> bool:
    """Whether a launcher starts a job of this process again by itself.

    Args:
        in_worker: It runs in a process of a launcher (joblib, submitit, Ray).
    """
    restarts = os.environ.get("SLURM_RESTART_COUNT", "")
    requeued = restarts.isdecimal() and int(restarts) > 0
    return in_worker or "TORCHELASTIC_RUN_ID" in os.environ or requeued


def fingerprint(cfg: DictConfig) -> str:
    """A short name of a composed config, the same for all that would give the same run; empty if it has gaps."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
    except (OmegaConfBaseException, ValueError):
        return ""
    kept = {key: value for key, value in plain.items() if key not in _FREE}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:16]


def decide(folder: Path, cfg: DictConfig, command: str) -> Decision:
    """Look into the folder of a job.

    Args:
        folder: Its own.
        cfg: Its composed config.
        command: Its command.

    Raises:
        UserError: If there is a run of another command, or a finished one of another configuration.
    """
    status = _read(folder / "status.json")
    there = any((folder / name).is_file() for name in _CHECKPOINTS)
    if cfg.get("overwrite") or not (status or there):
        return Decision(f"begins in {folder}")
    if status.get("command", command) != command:
        raise UserError(f"{folder} holds a run of {status['command']!r}, and this is {command!r}: give another folder")
    goes_on = there and "resume" in cfg
    if status.get("status") == "finished":
        if status.get("config") == fingerprint(cfg):
            return Decision(f"{folder} is finished", finished=status)
        if not goes_on:
            raise UserError(
                f"{folder} holds a finished run of another configuration: give another folder, "
                "or overwrite=true to write over it"
            )
    if goes_on:  # whether the configuration is the same is for the checkpoint to say, which knows all of it
        return Decision(f"goes on with {folder}", goes_on=True)
    return Decision(f"begins anew in {folder}, where nothing was finished")


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
