"""The tokenizer format of llama2.c: byte-pair pieces with scores in one small binary file.

Layout, little-endian: int32 longest piece in bytes; then for every token float32 score, int32 length, the bytes. Tokens
0, 1, 2 are unknown, begin and end; 3 to 258 are the raw bytes ``<0x00>`` to ``<0xFF>``.
"""

from __future__ import annotations

import heapq
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from effkit.errors import UserError

__all__ = ["Llama2cTokenizer"]

_FIRST_BYTE = 3
_FIRST_PIECE = _FIRST_BYTE + 256


class Llama2cTokenizer:
    """Text to token ids and back, by repeatedly joining the neighbours whose joint piece scores best.

    Args:
        pieces: The bytes of every token, in the order of their ids.
        scores: A score for every token; the higher, the earlier it is joined.

    Attributes:
        vocab_size: Number of tokens.
        bos_id: Begin of a text, 1.
        eos_id: End of a text, 2.
    """

    bos_id = 1
    eos_id = 2

    def __init__(self, pieces: Sequence[bytes], scores: Sequence[float]) -> None:
        if len(pieces) != len(scores):
            raise UserError(f"pieces and scores must have one length, got {len(pieces)} and {len(scores)}")
        if len(pieces) < _FIRST_PIECE or pieces[_FIRST_BYTE] != b"<0x00>":
            raise UserError(f"pieces must hold 3 control tokens, 256 bytes from <0x00> on and text, got {len(pieces)}")
        self.pieces, self.scores = list(pieces), list(scores)
        # Control and byte tokens are left out: no spelling of "<s>" in a text may become the control token.
        self._ids = {piece: i for i, piece in reversed(list(enumerate(pieces))) if i >= _FIRST_PIECE and piece}
        if b" " not in self._ids:
            raise UserError("pieces must hold a single space, which begins every text")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Llama2cTokenizer:
        """Read a tokenizer file.

        Args:
            path: For instance ``tok512.bin``.

        Raises:
            UserError: If the file is missing, truncated or no such file.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"tokenizer={os.fspath(path)!r} cannot be read: {error.strerror or error}") from error
        if len(data) < 12:
            raise UserError(f"tokenizer={os.fspath(path)!r} is no llama2.c tokenizer: it has {len(data)} bytes")
        (longest,) = struct.unpack_from("<i", data)
        pieces: list[bytes] = []
        scores: list[float] = []
        offset = 4
        while offset < len(data):
            if offset + 8 > len(data):
                raise UserError(f"tokenizer={os.fspath(path)!r} is truncated after token {len(pieces) - 1}")
            score, length = struct.unpack_from("<fi", data, offset)
            offset += 8
            if not 0 <= length <= longest:
                raise UserError(
                    f"tokenizer={os.fspath(path)!r} is no llama2.c tokenizer: token {len(pieces)} has {length} bytes, "
                    f"allowed are 0 to {longest}"
                )
            if offset + length > len(data):
                raise UserError(f"tokenizer={os.fspath(path)!r} is truncated inside token {len(pieces)}")
            pieces.append(data[offset : offset + length])
            scores.append(score)
            offset += length
        return cls(pieces, scores)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return len(self.pieces)

    def encode(self, text: str, bos: bool = False, eos: bool = False) -> list[int]:
        """Turn text into token ids.

        A space is put before a text that is not empty, as in training. Characters without a piece become their bytes.
        The best-scoring join comes first, of equal ones the leftmost, as in llama2.c; a heap makes it ``n log n``.

        Args:
            text: Any text.
            bos: Put the begin token in front.
            eos: Put the end token behind.

        Returns:
            Token ids.
        """
        ids: list[int] = []
        for character in f" {text}" if text else "":
            raw = character.encode("utf-8", errors="replace")
            known = self._ids.get(raw)
            ids.extend([known] if known is not None else [byte + _FIRST_BYTE for byte in raw])
        return [self.bos_id] * bos + self._join(ids) + [self.eos_id] * eos

    def _join(self, ids: list[int]) -> list[int]:
        """Join neighbours in a linked list; the heap holds candidate joins, stale ones are recognised by their ids."""
        count = len(ids)
        before, after = list(range(-1, count - 1)), [*range(1, count), -1]
        alive = [True] * count
        heap: list[tuple[float, int, int, int, int]] = []

        def offer(left: int) -> None:
            right = after[left]
            if left < 0 or right < 0 or min(ids[left], ids[right]) < _FIRST_PIECE:
                return
            joint = self._ids.get(self.pieces[ids[left]] + self.pieces[ids[right]])
            if joint is not None:
                heapq.heappush(heap, (-self.scores[joint], left, ids[left], ids[right], joint))

        for left in range(count - 1):
            offer(left)
        while heap:
            _, left, left_id, right_id, joint = heapq.heappop(heap)
            right = after[left]
            if not alive[left] or right < 0 or ids[left] != left_id or ids[right] != right_id:
                continue
            ids[left], alive[right], after[left] = joint, False, after[right]
            if after[right] >= 0:
                before[after[right]] = left
            if before[left] >= 0:
                offer(before[left])
            offer(left)
        return [i for i, keep in zip(ids, alive, strict=True) if keep]

    def decode(self, ids: Iterable[int]) -> str:
        """Turn token ids back into text; begin and end tokens vanish, and so does the space that encoding put in front.

        Args:
            ids: Token ids, a list or a 1-D tensor.

        Returns:
            The text; bytes that are no UTF-8 become the replacement character.

        Raises:
            UserError: If an id is outside the vocabulary.
        """
        out = bytearray()
        at_start = True
        for i in map(int, ids):
            if not 0 <= i < self.vocab_size:
                raise UserError(f"ids must lie in 0..{self.vocab_size - 1}, got {i}")
            if i in (self.bos_id, self.eos_id):
                at_start = True
                continue
            piece = bytes([i - _FIRST_BYTE]) if _FIRST_BYTE <= i < _FIRST_PIECE else self.pieces[i]
            out += piece[1:] if at_start and piece.startswith(b" ") else piece
            at_start = False
        return out.decode("utf-8", errors="replace")
