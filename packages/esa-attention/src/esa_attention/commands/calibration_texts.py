"""What compressors are calibrated on: several texts in equal shares, so that no single kind of text decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from effkit.errors import UserError
from effkit.notes import say_once
from esa_attention.commands.subject import Subject
from esa_attention.commands.texts import read_file, read_text
from esa_attention.evaluation.models.registry import FROM_PATH
from esa_attention.evaluation.models.text import read_split

__all__ = ["BUNDLED", "calibration_texts", "text_files"]

# English and source code; both come with Python. Only their training side is read.
BUNDLED = {"Python's documentation topics": "topics", "Python's library sources": "stdlib"}


def text_files(text: str | Path | Sequence[str] | None) -> list[str]:
    """The files that ``compressor.text`` names.

    Raises:
        UserError: If it is an empty list, or names a file twice.
    """
    if text is None:
        return []
    files = [str(text)] if isinstance(text, str | Path) else [str(path) for path in text]
    if not files or len(set(files)) != len(files):
        raise UserError(f"compressor.text={files} must name files, each once; null takes the bundled texts")
    return files


def calibration_texts(
    subject: Subject, num_tokens: int, text: str | Path | Sequence[str] | None = None
) -> tuple[list[Tensor], list[str]]:
    """Texts to calibrate a model on, in equal shares as far as they reach.

    Without files: the bundled texts, an English and a code one. Models that are made here get text of their own kind
    alone: that which they were trained on, samples of theirs, or random tokens.

    Args:
        subject: The model.
        num_tokens: Tokens of all texts together; fewer, with a word about it, if the user's files hold fewer.
        text: A file of the user, or several.

    Returns:
        Ids ``(n,)`` and a name of each text.

    Raises:
        UserError: If a file holds fewer than 2 tokens, or the bundled texts are too short.
    """
    files = text_files(text)
    if files:
        texts = {path: _head(subject.encode, read_file("compressor.text", path), num_tokens) for path in files}
        for path, ids in texts.items():
            if len(ids) < 2:
                raise UserError(f"compressor.text={path!r} holds fewer than 2 tokens")
        have = sum(map(len, texts.values()))
        if have < num_tokens:
            say_once(
                f"compressor.text holds {have:,} tokens, compressor.num_tokens={num_tokens:,} asks for more: "
                "calibrating on what there is"
            )
        names = [Path(path).name for path in files]
        names = names if len(set(names)) == len(names) else files
    elif subject.name in FROM_PATH:
        raw = {name: read_split("train", (source,)).decode() for name, source in BUNDLED.items()}  # type: ignore[arg-type]
        texts = {name: _head(subject.encode, content, num_tokens) for name, content in raw.items()}
        have = sum(map(len, texts.values()))
        if have < num_tokens:
            raise UserError(
                f"the bundled texts hold {have:,} tokens, compressor.num_tokens={num_tokens:,} asks for more; give "
                "files of yours: compressor.text=[FILE,FILE]"
            )
        names = list(texts)
    else:
        ids, label = read_text(subject, num_tokens, "train")
        return [ids], [label]
    lengths = _shares([len(ids) for ids in texts.values()], num_tokens)
    return [ids[:length] for ids, length in zip(texts.values(), lengths, strict=True)], names


def _head(encode: Callable[[str], Tensor], text: str, num_tokens: int) -> Tensor:
    """The first tokens of a text, of which only as much is encoded as is needed."""
    characters = 8 * num_tokens
    while True:
        ids = encode(text[:characters])
        if len(ids) >= num_tokens or characters >= len(text):
            return torch.as_tensor(ids)[:num_tokens]
        characters *= 2


def _shares(lengths: Sequence[int], total: int) -> list[int]:
    """Equal parts of a total; what a short text cannot give, the longer ones do."""
    found, left = [0] * len(lengths), total
    for done, i in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):
        found[i] = min(lengths[i], left // (len(lengths) - done))
        left -= found[i]
    return found
