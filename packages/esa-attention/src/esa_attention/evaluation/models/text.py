"""Real text that comes with Python: the language reference in ``pydoc_data.topics`` and the standard library.

Nothing is pinned: other Python versions have other text. Which side of the split a document is on depends on its name
alone, and so is the same everywhere.
"""

from __future__ import annotations

import functools
import importlib
import sysconfig
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from effkit.errors import UserError, choose

__all__ = ["SOURCES", "Document", "decode_bytes", "documents", "encode_bytes", "haystack_bytes", "read_split"]

Source = Literal["topics", "stdlib"]
Split = Literal["train", "test"]
SOURCES: tuple[Source, ...] = ("topics", "stdlib")
_TEST_SHARE = 8  # one document in so many is for testing
# Installed packages, tests (not shipped everywhere), tables of numbers, and the topics once more.
_SKIPPED = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "encodings", "pydoc_data"}


class Document(NamedTuple):
    """One text with a name that is the same on every machine, e.g. ``pydoc/lists`` or ``stdlib/json/encoder.py``."""

    name: str
    text: str

    @property
    def split(self) -> Split:
        """``test`` for about one name in eight, else ``train``; looks at nothing but the name."""
        return "test" if zlib.crc32(self.name.encode()) % _TEST_SHARE == 0 else "train"


@functools.cache
def documents(source: Source) -> tuple[Document, ...]:
    """All documents of a source, sorted by name.

    Args:
        source: ``topics`` (English, some 460,000 characters) or ``stdlib`` (Python sources, some 9 million).

    Raises:
        UserError: If the source is unknown, or this Python was installed without it.
    """
    choose("source", source, SOURCES)
    found = _topics() if source == "topics" else _stdlib()
    if not found:
        raise UserError(f"source={source!r} is not there: this Python was installed without its {source}")
    return tuple(sorted(found))


def _topics() -> list[Document]:
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        return []
    return [Document(f"pydoc/{name}", text) for name, text in topics.items()]


def _stdlib() -> list[Document]:
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).parts
        if _SKIPPED.isdisjoint(parts):
            text = path.read_bytes().decode("utf-8", errors="replace")
            found.append(Document("/".join(("stdlib", *parts)), text))
    return found


def _paragraphs(text: str) -> list[str]:
    return [p for p in text.split("\n\n") if p.strip()]


def read_split(split: Split, sources: Sequence[Source] = ("topics",)) -> bytes:
    """Concatenate one side of the train/test split, without any paragraph that occurs twice.

    Whole documents are either train or test. Some topics quote others, and many sources open with the same licence, so
    a paragraph is kept only where it stands first, test before train: none of the test text is in the train text.

    Args:
        split: ``train`` or ``test``.
        sources: Which texts.

    Returns:
        The text in UTF-8; the same bytes on every call.

    Raises:
        UserError: If a name is unknown or a source is missing.
    """
    choose("split", split, ("train", "test"))
    every = [document for source in sources for document in documents(source)]
    seen: set[str] = set()
    test = _once((d for d in every if d.split == "test"), seen)
    return test if split == "test" else _once((d for d in every if d.split == "train"), seen)


def _once(group: Iterable[Document], seen: set[str]) -> bytes:
    kept = []
    for document in group:
        for paragraph in _paragraphs(document.text):
            key = " ".join(paragraph.split())
            if key not in seen:
                seen.add(key)
                kept.append(paragraph)
    return "\n\n".join(kept).encode() + b"\n"


@functools.cache
def _all_bytes(source: Source) -> bytes:
    return "\n\n".join(document.text for document in documents(source)).encode()


def haystack_bytes(num_bytes: int, start: int = 0) -> bytes:
    """Filler for long contexts: the topics, then the standard library, as they are.

    Args:
        num_bytes: How many bytes, at least 0.
        start: First byte.

    Returns:
        Exactly ``num_bytes`` bytes of UTF-8 text; the ends may cut a character.

    Raises:
        UserError: If there is less text than asked for.
    """
    if num_bytes < 0 or start < 0:
        raise UserError(f"num_bytes and start must be at least 0, got {num_bytes} and {start}")
    stop = start + num_bytes
    # The small source alone will do for most; reading the library takes a second.
    text = _all_bytes("topics")
    if len(text) < stop:
        text = text + b"\n\n" + _all_bytes("stdlib")
    if len(text) < stop:
        raise UserError(f"num_bytes must be at most {len(text) - start} from byte {start} on, got {num_bytes}")
    return text[start:stop]


def encode_bytes(text: str | bytes) -> Tensor:
    """Byte-level ids of a text: ``(number of bytes,)``, int64, 0 to 255."""
    raw = text.encode() if isinstance(text, str) else text
    return torch.from_numpy(np.frombuffer(raw, np.uint8).astype(np.int64))


def decode_bytes(ids: Iterable[int] | Tensor) -> str:
    """The text of byte-level ids; what is no UTF-8 becomes the replacement character.

    Args:
        ids: Numbers 0 to 255, a list or a 1-D tensor.

    Raises:
        UserError: If an id is no byte.
    """
    numbers = ids.tolist() if isinstance(ids, Tensor) else [int(i) for i in ids]
    try:
        return bytes(numbers).decode("utf-8", errors="replace")
    except ValueError as error:
        raise UserError(f"ids must lie in 0..255, got {min(numbers)}..{max(numbers)}") from error
