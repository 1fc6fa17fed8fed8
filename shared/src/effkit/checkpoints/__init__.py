"""Weights in files: any checkpoint file -> tensors by name, and back, the same way for every package.

- Nothing but tensors and plain values is ever unpickled: safetensors, or ``torch.load(weights_only=True)``. What a file
  is, its contents decide, not its name.
- A file may hold several sets of weights (``model`` and ``model_ema``). Which one is taken follows timm's rule, can be
  chosen (``ema``), and is said.
- Whatever cannot be read is refused in one line (:class:`CheckpointError`): what the file is and what to do about it.
- Files are written whole or not at all, with the permissions the umask gives.

Importing this does not import torch.
"""

from effkit.atomic import atomic
from effkit.checkpoints.choosing import Checkpoint, read_checkpoint
from effkit.checkpoints.fitting import Misfit, check_finite, check_fit, compare
from effkit.checkpoints.folders import check_folder
from effkit.checkpoints.reading import Content, read_content, read_metadata, read_safetensors
from effkit.checkpoints.refusals import CheckpointError, MissingCheckpointError
from effkit.checkpoints.writing import SUFFIXES, plain_state, write_safetensors, write_state, write_torch

__all__ = [
    "SUFFIXES",
    "Checkpoint",
    "CheckpointError",
    "Content",
    "Misfit",
    "MissingCheckpointError",
    "atomic",
    "check_finite",
    "check_fit",
    "check_folder",
    "compare",
    "plain_state",
    "read_checkpoint",
    "read_content",
    "read_metadata",
    "read_safetensors",
    "write_safetensors",
    "write_state",
    "write_torch",
]
