"""Calibration text cut into sequences that a model can read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from effkit.errors import UserError

__all__ = ["as_sequences", "cut_sequences", "cut_texts", "hash_sequences", "in_batches"]


def as_sequences(token_ids: Tensor | Sequence[Any], base: nn.Module) -> list[Tensor]:
    """Token ids in whatever form as a list of sequences ``(T,)`` on the CPU.

    Args:
        token_ids: ``(N,)`` or ``(B, N)`` tensor, a list of numbers, or a list of sequences (lists or tensors).
        base: The decoder, for the size of its vocabulary.

    Raises:
        UserError: If it is none of those, is empty, or a token is not in the vocabulary.
    """
    if isinstance(token_ids, Tensor):
        if token_ids.ndim not in (1, 2):
            raise UserError(f"token_ids must have the shape (N,) or (B, N), got {tuple(token_ids.shape)}")
        rows: list[Any] = [token_ids] if token_ids.ndim == 1 else list(token_ids)
    else:
        rows = list(token_ids)
        if rows and not isinstance(rows[0], (Tensor, Sequence)):
            rows = [rows]
    sequences = []
    size = int(base.get_input_embeddings().num_embeddings)  # type: ignore[operator]
    for row in rows:
        try:
            ids = torch.as_tensor(row).detach().cpu()
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"token_ids must be numbers, got {str(row)[:60]!r}") from error
        if ids.numel() == 0:
            continue
        if ids.ndim != 1 or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise UserError(f"token_ids must be whole numbers in rows, got {ids.dtype} of the shape {tuple(ids.shape)}")
        if int(ids.min()) < 0 or int(ids.max()) >= size:
            raise UserError(
                f"token_ids must be in 0..{size - 1} (the vocabulary), got {int(ids.min())}..{int(ids.max())}"
            )
        sequences.append(ids.long())
    if not sequences:
        raise UserError("token_ids must hold at least one token, got none")
    return sequences


def cut_sequences(sequences: Sequence[Tensor], length: int, num_tokens: int) -> list[Tensor]:
    """Pieces of at most ``length`` tokens, together at most ``num_tokens``; a piece never spans two sequences.

    A single token is left out: it says nothing about which of several keys to choose.

    Args:
        sequences: Sequences ``(T,)``.
        length: Most tokens of a piece.
        num_tokens: Most tokens of all pieces.
    """
    pieces: list[Tensor] = []
    left = num_tokens
    for sequence in sequences:
        for piece in sequence.split(length):
            if left < 2:
                return pieces
            if len(piece) >= 2:
                pieces.append(piece[:left])
                left -= len(pieces[-1])
    return pieces


def cut_texts(
    sequences: Sequence[Tensor], names: str | Sequence[str], length: int, num_tokens: int
) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """As :func:`cut_sequences`, with a record of what was read of which text.

    Args:
        sequences: Sequences ``(T,)``.
        names: A name for all of them (empty: no record), or for each.
        length: Most tokens of a piece.
        num_tokens: Most tokens of all pieces.

    Returns:
        The pieces, and ``name``, ``tokens`` and ``sha256`` (of the tokens and their cuts) of every text.

    Raises:
        UserError: If there are more or fewer names than sequences, or a named sequence would not be read at all.
    """
    if isinstance(names, str):
        pieces = cut_sequences(sequences, length, num_tokens)
        return pieces, [_read(names, pieces)] if names else []
    if len(names) != len(sequences):
        raise UserError(f"text must name each of the {len(sequences)} sequences with tokens, got {len(names)} names")
    pieces, texts = [], []
    for name, sequence in zip(names, sequences, strict=True):
        own = cut_sequences([sequence], length, num_tokens - sum(map(len, pieces)))
        if not own:
            raise UserError(
                f"num_tokens={num_tokens} leaves nothing for {name!r}: give more, or shorter texts before it"
            )
        texts.append(_read(name, own))
        pieces += own
    return pieces, texts


def _read(name: str, pieces: Sequence[Tensor]) -> dict[str, Any]:
    return {"name": name, "tokens": sum(map(len, pieces)), "sha256": hash_sequences(pieces)}


def in_batches(pieces: Sequence[Tensor], batch_size: int) -> Iterator[Tensor]:
    """Neighbours of equal length together, ``(B, T)``, in order: nothing is padded."""
    begin = 0
    while begin < len(pieces):
        end = begin + 1
        while end < len(pieces) and end - begin < batch_size and len(pieces[end]) == len(pieces[begin]):
            end += 1
        yield torch.stack(list(pieces[begin:end]))
        begin = end


def hash_sequences(pieces: Sequence[Tensor]) -> str:
    """A SHA-256 of the tokens and of where they are cut."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(f"{len(piece)}:".encode())
        digest.update(piece.numpy().astype("<i8").tobytes())
    return digest.hexdigest()
