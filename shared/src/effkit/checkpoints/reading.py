"""Read a file's contents, without running code from it."""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effkit.checkpoints.looking import Kind, find, look
from effkit.checkpoints.pickles import foreign_names
from effkit.checkpoints.refusals import CheckpointError, listed, shown

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Content", "check_file", "read_content", "read_metadata", "read_safetensors"]

_AGAIN = "copy or download it again"


@dataclass(frozen=True)
class Content:
    """What a file holds, as it stands there.

    Attributes:
        path: The file.
        container: ``"safetensors"`` or ``"torch"``.
        value: Tensors by name; from a torch file whatever was saved.
        metadata: Strings of a safetensors file.
    """

    path: Path
    container: str
    value: Any
    metadata: dict[str, str] = field(default_factory=dict)


def read_content(path: str | os.PathLike[str], *, mmap: bool = False) -> Content:
    """Read a file of tensors and plain values.

    Args:
        path: A ``.safetensors`` or torch file, whatever its name.
        mmap: Map tensors of a torch file instead of reading them, where only its other values are wanted.

    Returns:
        Its contents on the CPU.

    Raises:
        MissingCheckpointError: If there is no such file.
        CheckpointError: If it holds anything else, is damaged, or would need code from it to be run.
    """
    file = find(path)
    with _system_errors(file):
        kind = look(file)
        if kind == "safetensors":
            tensors, metadata = read_safetensors(file)
            return Content(file, "safetensors", tensors, metadata)
        return Content(file, "torch", _unpickle(file, kind, mmap and kind == "zip" and file.suffix != ".safetensors"))


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file.

    Args:
        path: The file, whatever its name.

    Returns:
        Tensors on the CPU and the strings of its metadata, both by name.

    Raises:
        MissingCheckpointError: If there is no such file.
        CheckpointError: If it is anything else, or not whole.
    """
    with _opened(path) as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, dict(opened.metadata() or {})  # noqa: SIM118


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The strings of a safetensors file's metadata, without its tensors.

    Raises:
        MissingCheckpointError: If there is no such file.
        CheckpointError: If it is anything else, or not whole.
    """
    with _opened(path) as opened:
        return dict(opened.metadata() or {})


def check_file(path: str | os.PathLike[str]) -> None:
    """Check what can be told without reading tensors: the format, that the file is whole, that no code is in it.

    Raises:
        MissingCheckpointError: If there is no such file.
        CheckpointError: If it could not be read.
    """
    file = find(path)
    with _system_errors(file):
        kind = look(file)
        if kind == "safetensors":
            read_metadata(file)
        elif names := foreign_names(file, kind):
            raise CheckpointError(file, _code(names))


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    file = find(path)
    with _system_errors(file):
        if look(file) != "safetensors":
            raise CheckpointError(file, "it is a file of torch, no safetensors")
        try:
            with safe_open(file, framework="pt", device="cpu") as opened:
                yield opened
        except SafetensorError as error:
            raise CheckpointError(file, _damage(file) or f"it is damaged ({shown(error)}); {_AGAIN}") from error


@contextmanager
def _system_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(file, shown(error.strerror or error)) from error


def _damage(file: Path) -> str:
    """What the header of a safetensors file says against its size."""
    size = file.stat().st_size
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if 8 + length > size:
            return f"it is cut short: it has {size:,} bytes, its header alone asks for {8 + length:,}; {_AGAIN}"
        try:
            header = json.loads(opened.read(length))
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            return f"it is damaged: its header is no table of tensors; {_AGAIN}"
    wanted = 8 + length + max(ends, default=0)
    if wanted > size:
        return f"it is cut short: it has {size:,} bytes, its header asks for {wanted:,}; {_AGAIN}"
    return f"it has {size:,} bytes, its header accounts for {wanted:,}; {_AGAIN}" if wanted < size else ""


def _unpickle(file: Path, kind: Kind, mmap: bool) -> Any:
    import torch

    try:
        # timm's training checkpoints carry their arguments along, a plain bag of values.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # what torch thinks of the age of a file is not for our users
            if mmap:
                return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            with open(file, "rb") as opened:  # by its name, newer versions would take it for what the suffix says
                return torch.load(opened, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a crafted or damaged pickle raises anything
        if names := foreign_names(file, kind):
            raise CheckpointError(file, _code(names)) from error
        if isinstance(error, OSError):
            raise
        cut = isinstance(error, EOFError) or "EOF" in str(error) or "Ran out of input" in str(error)
        what = "it is cut short" if cut else f"it is damaged or holds more than plain tensors ({_cause(error)})"
        raise CheckpointError(file, f"{what}; {_AGAIN}") from error


def _cause(error: Exception) -> str:
    """A short reason, without torch's advice to switch its protection off."""
    text = str(error)
    if "eights only load failed" in text or "weights_only" in text:
        text = text.partition("WeightsUnpickler error:")[2].partition("Please")[0].partition("Check the")[0]
    return shown(text, 100) or type(error).__name__


def _code(names: list[str]) -> str:
    return (
        f"it holds {listed(names)}, which only code could bring back, not just plain tensors, and code from a file is "
        "not run here; where it was made, save them alone: torch.save(model.state_dict(), 'weights.pth')"
    )
