"""Check a folder of weight files, possibly in shards, before a library loads it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from effkit.checkpoints.reading import check_file
from effkit.checkpoints.refusals import CheckpointError, MissingCheckpointError, listed

__all__ = ["check_folder"]

# Index of shards and single file, in the order in which transformers looks for them.
_NAMES = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)


def check_folder(folder: str | os.PathLike[str]) -> list[Path]:
    """Check the weight files of a folder as transformers, diffusers and timm write it; tensors are not read.

    Args:
        folder: With ``model.safetensors`` or ``pytorch_model.bin``, or with shards and their index.

    Returns:
        The files that hold the weights; empty if there are none by these names.

    Raises:
        MissingCheckpointError: If there is no such folder.
        CheckpointError: Naming the first file that is missing, cut short, of another format, or holds code.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise MissingCheckpointError(root)
    for single, index in _NAMES:
        if (root / single).exists():
            files = [root / single]
        elif (root / index).exists():
            files = _shards(root / index)
        else:
            continue
        for file in files:
            check_file(file)
        return files
    return []


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [index.with_name(name) for name in names]
    except OSError as error:
        raise CheckpointError(index, str(error.strerror or error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(index, "it is no index of shards: a JSON object with weight_map") from error
    gone = [name for name, file in zip(names, files, strict=True) if not file.is_file()]
    if gone or not files:
        what = f"{len(gone)} of {len(files)} shards are not there: {listed(gone)}" if gone else "it names no shards"
        raise CheckpointError(index, what)
    return files
