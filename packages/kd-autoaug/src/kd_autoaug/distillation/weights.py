"""Weights from files and to files, see :mod:`effkit.checkpoints`; a file of ours says how pictures are prepared."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor, nn

from effkit.checkpoints import check_fit, compare, read_checkpoint, write_safetensors
from effkit.data.preprocessing import Preprocessing
from effkit.errors import UserError

__all__ = ["load_weights", "read_weights", "save_weights"]


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read weights by the network's own names.

    Args:
        path: ``.safetensors``, a torch file, or a training checkpoint.

    Raises:
        UserError: If there is no such file, it cannot be read as tensors, or values are not finite.
    """
    return read_checkpoint(path).state


def load_weights(model: nn.Module, path: str | os.PathLike[str], classes: int | None = None) -> None:
    """Load weights into a network; every name and shape must fit.

    Args:
        model: Receives them, in its own dtype and on its device.
        path: See :func:`read_weights`.
        classes: Of the data the network was built for, so that weights for others are called that.

    Raises:
        UserError: If the file cannot be read or does not fit; names the first tensors that are missing, unknown or of
            another shape.
    """
    own = model.state_dict()
    state = read_checkpoint(path, expect=own.__contains__).state
    misfit = compare(state, model, optional=["num_batches_tracked"])
    stored = {theirs[0] if theirs and ours[:1] == (classes,) else None for theirs, ours in misfit.shapes.values()}
    if len(stored) == 1 and None not in stored and not (misfit.missing or misfit.unknown):
        raise UserError(
            f"weights {os.fspath(path)!r} tell {stored.pop()} classes apart and the data has {classes}: give data of "
            "the classes they were trained on"
        )
    check_fit(state, model, path, optional=["num_batches_tracked"])  # which old files do not have
    model.load_state_dict({**own, **state})


def save_weights(model: nn.Module, path: str | os.PathLike[str], preprocessing: Preprocessing | None = None) -> Path:
    """Write a network's weights as safetensors, whole or not at all.

    Args:
        model: The network.
        path: The file.
        preprocessing: What the network expects of pictures, kept beside its weights.

    Returns:
        The path.
    """
    return write_safetensors(path, model.state_dict(), preprocessing.to_metadata() if preprocessing else None)
