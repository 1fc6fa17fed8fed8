"""Text for a model of any kind, as long as asked for; calibration and test share none of it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from effkit.errors import UserError, choose
from esa_attention.commands.subject import Subject
from esa_attention.evaluation.models.sampling import sample_stories
from esa_attention.evaluation.models.text import encode_bytes, read_split
from esa_attention.evaluation.tasks.multi_needle import multi_needle

__all__ = ["read_file", "read_text"]


def read_file(key: str, path: str | Path) -> str:
    """A text file of the user.

    Args:
        key: What names it on the command line.
        path: The file.

    Raises:
        UserError: If it cannot be read, or is no UTF-8: other bytes would be read as other characters.
    """
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{key}={str(path)!r} is no UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise UserError(f"{key}={str(path)!r} cannot be read: {error.strerror or error}") from error


def read_text(
    subject: Subject, num_tokens: int, split: str, path: str | None = None, seed: int = 0
) -> tuple[Tensor, str]:
    """Text for a model, as long as asked for.

    Args:
        subject: The model.
        num_tokens: Tokens wanted; fewer only if a file of the user holds fewer.
        split: ``train`` (calibration) or ``test``; they share no document, sample or seed.
        path: A text file of the user instead.
        seed: Of what is sampled.

    Returns:
        Ids ``(n,)`` and a name for the text.

    Raises:
        UserError: If there is too little text.
    """
    choose("split", split, ["train", "test"])
    if num_tokens < 2:
        raise UserError(f"num_tokens must be at least 2, got {num_tokens}")
    seed += 0 if split == "test" else 10_000
    if path is not None:
        ids = subject.encode(read_file("text", path))
        if ids.numel() < 2:
            raise UserError(f"text {path!r} holds fewer than 2 tokens")
        return ids[:num_tokens], Path(path).name
    if subject.name == "tiny_random" or (subject.name == "constructed_induction" and split == "train"):
        # All tokens alike: a text of mere filler would teach the compressors nothing about keys that occur once.
        generator = torch.Generator().manual_seed(seed)
        size = int(subject.model.config.vocab_size)
        return torch.randint(2, size, (num_tokens,), generator=generator), "random tokens"
    if subject.name == "constructed_induction":
        needles = min(8, max(1, num_tokens // 16))
        return multi_needle(subject.vocab(), num_tokens, needles, seed)[0].context_ids, "needles in filler"
    if subject.name == "stories260k":
        return sample_stories(subject.model, subject.tokenizer, num_tokens, seed), "stories sampled from the model"
    text = read_split(split, ("topics",))  # type: ignore[arg-type]
    if len(text) < (5 if subject.tokenizer is not None else 1) * num_tokens:
        text += read_split(split, ("stdlib",))  # type: ignore[arg-type]
    ids = (
        encode_bytes(text[: num_tokens + 1])
        if subject.tokenizer is None
        else subject.encode(text[: 8 * num_tokens].decode("utf-8", "replace"))
    )
    if ids.numel() < num_tokens:
        raise UserError(
            f"the bundled text holds {ids.numel():,} tokens, {num_tokens:,} were asked for; give a file of yours: "
            "text=FILE, for calibration compressor.text=FILE"
        )
    return ids[:num_tokens], "Python's documentation topics and sources"
