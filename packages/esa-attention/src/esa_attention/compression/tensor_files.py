"""Tensors and a few strings in one safetensors file: written whole or not at all, read without executing anything."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from effkit.errors import UserError

__all__ = ["read_json", "read_number", "read_tensors", "write_tensors"]

VERSION = "1"


def write_tensors(
    path: str | os.PathLike[str], kind: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Path:
    """Write under a temporary name beside the target, then rename, so that nobody ever sees half a file.

    Tensors go to the file directly: a calibration's moments are too large to be held as bytes once more.

    Args:
        path: Where to; missing folders are made.
        kind: What the file is, told back by :func:`read_tensors`.
        tensors: Tensors by name, on any device.
        metadata: Strings by name.

    Returns:
        The path.
    """
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # Clones: safetensors refuses tensors that share memory, and a view would store what lies around it.
    plain = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    try:
        save_file(plain, temporary, metadata={**metadata, "format": kind, "version": VERSION})
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return path


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
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise UserError(f"path must be a file of {kind}, got {str(path)!r}, which is not there")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            if metadata.get("format") != kind:
                raise UserError(f"{path}: format must be {kind!r}, got {metadata.get('format')!r}")
            if metadata.get("version") != VERSION:
                raise UserError(f"{path}: version must be {VERSION!r}, got {metadata.get('version')!r}")
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: must be a whole safetensors file of {kind}, got one that cannot be read ({error})"
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
