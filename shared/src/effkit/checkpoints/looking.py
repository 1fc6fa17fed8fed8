"""What a file is, by its first bytes."""

from __future__ import annotations

import codecs
import os
import zipfile
from pathlib import Path
from typing import Literal

from effkit.checkpoints.refusals import CheckpointError, MissingCheckpointError, listed

__all__ = ["Kind", "find", "look"]

Kind = Literal["safetensors", "zip", "legacy"]

_HEAD = 4096
_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the number with which torch's older files begin
_LARGEST_HEADER = 100_000_000  # safetensors refuses more
_UNPACK = "it is an archive ({}): unpack it first"
_FOREIGN = {
    b"version https://git-lfs": "it is a Git LFS pointer, which stands for the file: fetch that with 'git lfs pull'",
    b"\x89HDF": "it is an HDF5 file (Keras or others), no file of torch",
    b"GGUF": "it is a GGUF file (llama.cpp), no file of torch",
    b"\x93NUMPY": "it is a NumPy array, no file of torch",
    b"\x1f\x8b": _UNPACK.format("gzip"),
    b"BZh": _UNPACK.format("bzip2"),
    b"\xfd7zXZ": _UNPACK.format("xz"),
    b"\x28\xb5\x2f\xfd": _UNPACK.format("zstd"),
    b"7z\xbc\xaf": _UNPACK.format("7z"),
    b"Rar!": _UNPACK.format("rar"),
    b"\x89PNG": "it is a picture",
    b"\xff\xd8\xff": "it is a picture",
    b"GIF8": "it is a picture",
    b"II*\0": "it is a picture",
    b"MM\0*": "it is a picture",
    b"%PDF": "it is a PDF",
    b"PAR1": "it is a Parquet table, no file of torch",
}
_PROGRAM = "it is {}, a program and not weights alone; give the checkpoint it was made from"


def find(path: str | os.PathLike[str]) -> Path:
    """The path of a regular file, ``~`` expanded.

    Raises:
        CheckpointError: If it is something else, or not there.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        inside = sorted(p.name for suffix in _SUFFIXES for p in file.glob(f"*{suffix}"))
        raise CheckpointError(file, f"it is a folder, give a file in it{f' ({listed(inside)})' if inside else ''}")
    if not file.is_file():
        if file.exists():
            raise CheckpointError(file, "it is no regular file")
        raise MissingCheckpointError(file)
    return file


def look(file: Path) -> Kind:
    """Which of the formats that hold tensors a file has.

    Args:
        file: From :func:`find`.

    Raises:
        CheckpointError: If it is of none of them; says what it is.
        OSError: If the operating system does not let us read it.
    """
    with open(file, "rb") as opened:
        head = opened.read(_HEAD)
    if not head:
        raise CheckpointError(file, "it is empty (0 bytes)")
    if head.startswith(b"PK"):
        _check_zip(file)
        return "zip"
    if _MAGIC in head[:40]:
        return "legacy"
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= _LARGEST_HEADER:
        return "safetensors"
    raise CheckpointError(file, _describe(head))


def _check_zip(file: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise CheckpointError(file, f"it is cut short or damaged: {_size(file)}, and no end of the archive") from error
    bases = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in bases:
        raise CheckpointError(file, "it is a TorchScript archive, a program; save the model's state_dict() instead")
    if "archive_format" in bases or "serialized_exported_program.json" in bases:
        raise CheckpointError(file, _PROGRAM.format("a file of torch.export"))
    if "data.pkl" not in bases:
        what = "NumPy arrays" if any(base.endswith(".npy") for base in bases) else "no data.pkl"
        raise CheckpointError(file, f"it is a zip archive with {what}, no file of torch")


def _describe(head: bytes) -> str:
    for start, what in _FOREIGN.items():
        if head.startswith(start):
            return what
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "it is a picture"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "it is a picture"
    if head[4:8] == b"TFL3":
        return _PROGRAM.format("a TensorFlow Lite model")
    if head[:1] == b"\x08" and head[1:2] <= b"\x20" and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a"):
        return _PROGRAM.format("an ONNX model")  # field 1, the version, then the producer's name or the graph
    if head[257:262] == b"ustar":
        return _UNPACK.format("tar")
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "it is a bare Python pickle, which could run code; no file of plain tensors written by torch"
    if not head.strip(b"\0"):
        return "it begins with zero bytes only; copy or download it again"
    if len(head) < 9 and b"\0" in head:
        return f"it is cut short: it has {len(head)} bytes; copy or download it again"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        text = "\0"
    if not all(c.isprintable() or c in "\t\r\n\f\x1b\ufeff" for c in text):
        return "its format is not known; give a .safetensors file or one of plain tensors written by torch.save"
    begins = text.lstrip("\ufeff \t\r\n").lower()
    if begins.startswith(("<!doctype html", "<html")):
        return "it is a web page (HTML), no file of plain tensors; perhaps a login or error page was saved in its place"
    return f"it is {'JSON' if begins[:1] in ('{', '[') else 'text'}, no file of plain tensors"


def _size(file: Path) -> str:
    return f"{file.stat().st_size:,} bytes"
