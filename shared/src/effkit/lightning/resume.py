"""Checkpoints on disk: found by run folder, written atomically, read without running code from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from effkit.atomic import atomic
from effkit.checkpoints import CheckpointError, read_content
from effkit.errors import UserError
from effkit.runs.records import read_stored

__all__ = [
    "LAST_FILE",
    "STEP_FILE",
    "AtomicCheckpointIO",
    "Resume",
    "find_resume",
    "how_to_go_on",
    "load_checkpoint",
    "network_state",
]

LAST_FILE = "last.ckpt"
STEP_FILE = "step.ckpt"
"""Of a part of an epoch, see ``effkit.lightning.stepping``."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, then renames: whoever reads sees the old checkpoint or the new one, never half of one.

    Lightning's own writes to the system's temporary folder and moves the file, which is a plain copy when that folder
    is on another file system.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path`` atomically and durably."""
        with atomic(path) as temporary, open(temporary, "wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint; only tensors and plain containers are accepted."""
        return load_checkpoint(Path(path))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in it runs code.

    Raises:
        UserError: If the file is missing, damaged or holds more than tensors and plain containers.
    """
    if not path.is_file():
        raise UserError(f"the checkpoint {path} does not exist")
    try:
        value = read_content(path).value
    except CheckpointError as error:
        raise UserError(f"the checkpoint {path} cannot be read: {error.reason}") from error
    if not isinstance(value, dict):
        raise UserError(f"the checkpoint {path} is no checkpoint of a training run: it holds a {type(value).__name__}")
    return value


@dataclass(frozen=True)
class Resume:
    """Where a run goes on.

    Args:
        checkpoint: The file.
        epoch: The first epoch still to be done, counting from 0.
        folder: The run folder to write on into; ``None`` if the file does not lie in one.
        config: The configuration that the checkpoint was written under; empty if it holds none.
        hardware: What it was computed on, see ``effkit.lightning.agreement.hardware``; empty likewise.
        batches: Batches of that epoch that every process has done already.
        of: How many the epoch has.
    """

    checkpoint: Path
    epoch: int
    folder: Path | None
    config: dict[str, Any] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    batches: int = 0
    of: int = 0

    @property
    def place(self) -> str:
        """Where that is, in words."""
        if self.batches:
            return f"in epoch {self.epoch + 1} after batch {self.batches} of {self.of}"
        return f"after epoch {self.epoch}"

    def whole(self) -> Resume:
        """The end of the epoch before: what another batch size or number of processes can go on from.

        Raises:
            UserError: If there is none.
        """
        last = self.checkpoint.with_name(LAST_FILE)
        if not self.batches:
            return self
        if not last.is_file():
            raise UserError(f"resume: {self.folder} was stopped in its first epoch and can go on as it was only")
        return _at(last, str(last))


def find_resume(resume: str | Path | None) -> Resume | None:
    """Find the checkpoint that ``resume=`` means.

    Args:
        resume: A run folder (its ``checkpoints/step.ckpt`` where that is ahead of ``last.ckpt``, as after a signal),
            a ``.ckpt`` file, or ``None``.

    Raises:
        UserError: If there is no checkpoint, or it was not written by a training run.
    """
    if resume is None or str(resume) == "":
        return None
    path = Path(resume).expanduser()
    if not path.exists():
        raise UserError(f"resume={str(resume)!r} does not exist: give a run folder or a .ckpt file")
    if path.is_dir():
        last, step = path / "checkpoints" / LAST_FILE, path / "checkpoints" / STEP_FILE
        path = step if _updates(step) > _updates(last) else last
        if not path.is_file():
            raise UserError(f"resume={str(resume)!r} has no checkpoints/last.ckpt: its first epoch never ended")
    return _at(path, str(resume))


def _updates(file: Path) -> int:
    """Optimizer updates behind a checkpoint; -1 if there is none, 0 if it cannot be read, which is told when it is."""
    if not file.is_file():
        return -1
    return int(read_stored(file).get("global_step") or 0)


def _at(path: Path, given: str) -> Resume:
    checkpoint = load_checkpoint(path)
    if not {"epoch", "global_step", "loops", "optimizer_states"} <= set(checkpoint):
        raise UserError(f"resume={given!r} is no checkpoint of a training run: it has weights but no optimizer state")
    path = path.absolute()
    folder = path.parent.parent if path.parent.name == "checkpoints" else None
    config, hardware = checkpoint.get("config") or {}, checkpoint.get("hardware") or {}
    if (step := checkpoint.get("step")) is not None:
        return Resume(path, checkpoint["epoch"], folder, config, hardware, step["batches"], step["of"])
    return Resume(path, checkpoint["epoch"] + 1, folder, config, hardware)


def how_to_go_on(folder: Path | None) -> str:
    """The end of a sentence about a run that has stopped: how it goes on."""
    if folder is None:
        return ""
    try:
        resume = find_resume(folder)
    except UserError:
        return "; its first epoch had not ended"
    assert resume is not None
    return f"; resume={folder} goes on {resume.place}"


def network_state(path: str | Path, which: str = "best") -> dict[str, Tensor]:
    """Return the network's weights (without Lightning's prefix) of a run; the averaged ones if the run kept an average.

    Args:
        path: A run folder or one of its ``.ckpt`` files.
        which: In a run folder, ``"best"`` or ``"last"``.

    Raises:
        UserError: If there is no such checkpoint or no network in it.
    """
    path = Path(path).expanduser()
    checkpoint = load_checkpoint(path / "checkpoints" / f"{which}.ckpt" if path.is_dir() else path)
    prefix = "model."
    state = {k.removeprefix(prefix): v for k, v in checkpoint.get("state_dict", {}).items() if k.startswith(prefix)}
    if not state:
        raise UserError(
            f"{path} holds no network: a checkpoint of a training run has a state_dict with model.* entries"
        )
    return state
