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

__all__ = ["AtomicCheckpointIO", "Resume", "find_resume", "load_checkpoint", "network_state"]


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
    """

    checkpoint: Path
    epoch: int
    folder: Path | None
    config: dict[str, Any] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)


def find_resume(resume: str | Path | None) -> Resume | None:
    """Find the checkpoint that ``resume=`` means.

    Args:
        resume: A run folder (its ``checkpoints/last.ckpt`` is taken), a ``.ckpt`` file, or ``None``.

    Raises:
        UserError: If there is no checkpoint, or it was not written at the end of an epoch by a training run.
    """
    if resume is None or str(resume) == "":
        return None
    path = Path(resume).expanduser()
    if not path.exists():
        raise UserError(f"resume={str(resume)!r} does not exist: give a run folder or a .ckpt file")
    if path.is_dir():
        path = path / "checkpoints" / "last.ckpt"
        if not path.is_file():
            raise UserError(f"resume={str(resume)!r} has no checkpoints/last.ckpt: its first epoch never ended")
    checkpoint = load_checkpoint(path)
    if not {"epoch", "global_step", "loops", "optimizer_states"} <= set(checkpoint):
        raise UserError(
            f"resume={str(resume)!r} is no checkpoint of a training run: it has weights but no optimizer state"
        )
    path = path.absolute()
    folder = path.parent.parent if path.parent.name == "checkpoints" else None
    config, hardware = checkpoint.get("config") or {}, checkpoint.get("hardware") or {}
    return Resume(path, checkpoint["epoch"] + 1, folder, config, hardware)


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
