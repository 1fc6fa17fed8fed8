"""What our safetensors files say of themselves: what they are, which version, and a few numbers and lists."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from effkit.checkpoints import CheckpointError, read_metadata, read_safetensors, write_safetensors
from effkit.errors import UserError

__all__ = ["read_json", "read_number", "read_tensors", "write_tensors"]

VERSION = "1"


def write_tensors(
    path: str | os.PathLike[str], kind: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Path:
    """Write a file of ours, whole or not at all.

    Args:
        path: Where to; missing folders are made.
        kind: What the file is, told back by :func:`read_tensors`.
        tensors: Tensors by name, on any device.
        metadata: Strings by name.

    Returns:
        The path.
    """
    return write_safetensors(path, tensors, {**metadata, "format": kind, "version": VERSION})


def read_tensors(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what :func:`write_tensors` wrote.

    Args:
        path: The file.
        kind: What it has to be.

    Returns:
        Tensors on the CPU and strings, both by name.

    Raises:
        UserError: If there is no such file, it is cut short, or it is something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"path must be a file of {kind}, got {str(path)!r}, which is not there")
    try:
        metadata = read_metadata(path)
        for name, wanted in (("format", kind), ("version", VERSION)):
            if metadata.get(name) != wanted:
                raise UserError(f"{path}: {name} must be {wanted!r}, got {metadata.get(name)!r}")
        return read_safetensors(path)
    except CheckpointError as error:
        raise UserError(
            f"{path}: must be a whole safetensors file of {kind}, got one that cannot be read ({error.reason})"
        ) from error


def read_number(path: object, metadata: Mapping[str, str], name: str, least: int = 0) -> int:
    """A whole number of the metadata.

    Raises:
        UserError: If it is missing, no number or below ``least``.
    """
    text = metadata.get(name)
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > 18 or int(text) < least:
        raise UserError(f"{path}: {name} must be a whole number of at least {least}, got {text!r}")
    return int(text)


def read_json(path: object, metadata: Mapping[str, str], name: str, kind: type) -> Any:
    """A JSON value of the metadata.

    Raises:
        UserError: If it is missing, no JSON or not of type ``kind``.
    """
    try:
        value = json.loads(metadata[name])
    except (KeyError, ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise UserError(f"{path}: {name} must be a JSON {kind.__name__}, got {metadata.get(name)!r}")
    return value
