"""The tasks in English, for any tokenizer. The filler is text that ships with Python, or the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from effkit.errors import UserError
from esa_attention.evaluation.models.text import decode_bytes, encode_bytes, haystack_bytes
from esa_attention.evaluation.tasks.facts import Fact

__all__ = ["TextVocab"]

# Common words of one or two tokens in most vocabularies; 24 x 24 different subjects.
_ADJECTIVES = """
amber ancient bold brave calm clever cosmic crimson distant eager early fancy gentle golden happy hidden humble icy
lucky mellow narrow purple quiet rapid
"""
_NOUNS = """
anchor basket beacon bridge canyon castle cellar comet falcon forest garden hammer harbor island kettle ladder lantern
meadow mirror orchard pebble river saddle window
"""
_MARGIN = 4096  # different seeds begin within so many tokens of the filler
_PIECE = 1 << 16  # bytes encoded at once


class TextVocab:
    """English statements in a haystack of real text.

    Args:
        encode: Text to ids, without special tokens.
        decode: Ids to text.
        bos_id: Token before every context, or ``None``.
        haystack: Filler text; by default :func:`~esa_attention.evaluation.models.text.haystack_bytes`.

    Example:
        >>> TextVocab.byte_level().facts(1, torch.Generator().manual_seed(0))[0].text.isdigit()
        True
    """

    answer_ids: Tensor | None = None

    def __init__(
        self,
        encode: Callable[[str], Sequence[int]],
        decode: Callable[[Sequence[int]], str],
        *,
        bos_id: int | None = None,
        haystack: str | None = None,
    ) -> None:
        self._encode = encode
        self.decode: Callable[[Sequence[int]], str] | None = decode
        self.prefix = torch.tensor([] if bos_id is None else [bos_id], dtype=torch.long)
        self._own_text = None if haystack is None else haystack.encode()
        self._filler: list[Tensor] = []

    @classmethod
    def byte_level(cls, haystack: str | None = None) -> TextVocab:
        """For a byte-level model: every byte is a token, there is no begin token."""
        return cls(lambda text: encode_bytes(text).tolist(), decode_bytes, haystack=haystack)

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, haystack: str | None = None) -> TextVocab:
        """For a tokenizer of transformers or of llama2.c; a begin token is used if the tokenizer itself puts one.

        Args:
            tokenizer: What ``AutoTokenizer.from_pretrained`` or ``Llama2cTokenizer.load`` returns.
            haystack: Filler text.
        """
        if hasattr(tokenizer, "bos_token_id"):
            begin = tokenizer.bos_token_id
            bos_id = begin if begin is not None and begin in tokenizer.encode("a")[:1] else None
            return cls(
                lambda text: tokenizer.encode(text, add_special_tokens=False),
                lambda ids: tokenizer.decode(list(ids), skip_special_tokens=True),
                bos_id=bos_id,
                haystack=haystack,
            )
        return cls(tokenizer.encode, tokenizer.decode, bos_id=tokenizer.bos_id, haystack=haystack)

    def haystack(self, num_tokens: int, generator: torch.Generator) -> Tensor:
        """A stretch of the filler that begins at a random token.

        Raises:
            UserError: If the user's own text is too short; says how long it is in tokens.
        """
        start = int(torch.randint(0, _MARGIN, (), generator=generator))
        # In fixed pieces, so that the ids do not depend on what was asked for before.
        while sum(map(len, self._filler)) < start + num_tokens:
            raw = self._piece(len(self._filler))
            if not raw:
                have = sum(map(len, self._filler))
                raise UserError(
                    f"haystack must have at least {num_tokens + _MARGIN} tokens for this length, got {have}"
                )
            self._filler.append(self._ids(raw.decode("utf-8", errors="ignore")))
        return torch.cat(self._filler)[start : start + num_tokens]

    def _piece(self, number: int) -> bytes:
        if self._own_text is None:
            return haystack_bytes(_PIECE, number * _PIECE)
        return self._own_text[number * _PIECE : (number + 1) * _PIECE]

    def facts(self, count: int, generator: torch.Generator) -> list[Fact]:
        """The magic number of so many different subjects."""
        facts = []
        numbers = self._numbers(count, 7, generator)
        for subject, number in zip(self._subjects(count, generator), numbers, strict=True):
            statement = f"\nThe magic number of the {subject} is {number}.\n"
            question = f"\nWhat is the magic number of the {subject}? The magic number of the {subject} is"
            facts.append(self._fact(statement, question, number))
        return facts

    def secret(self, digits: int, generator: torch.Generator) -> Fact:
        """A pass key."""
        if not 1 <= digits <= 15:
            raise UserError(f"digits must be in 1..15, got {digits}")
        (number,) = self._numbers(1, digits, generator)
        statement = f"\nThe pass key is {number}. Remember it. {number} is the pass key.\n"
        return self._fact(statement, "\nWhat is the pass key? The pass key is", number)

    def stars(self, count: int, generator: torch.Generator) -> list[Fact]:
        """Numbers of stars that one person counted at different times."""
        question = "\nHow many stars did Mira count each time? List every number. The numbers are"
        numbers = self._numbers(count, 4, generator)
        return [self._fact(f"\nTonight Mira looked up and counted {n} stars.\n", question, n) for n in numbers]

    def chains(self, num_chains: int, num_hops: int, generator: torch.Generator) -> list[list[Fact]]:
        """Assignments: the first of a chain has a number, every other the variable before it."""
        names = self._names(num_chains * num_hops, generator)
        numbers = self._numbers(num_chains, 5, generator)
        out = []
        for chain, number in enumerate(numbers):
            question = f"\nWhich variables have the value {number}? List every one. They are"
            value = number
            links = []
            for name in names[chain * num_hops : (chain + 1) * num_hops]:
                links.append(self._fact(f"\nVAR {name} = {value}\n", question, name))
                value = f"VAR {name}"
            out.append(links)
        return out

    def _fact(self, statement: str, question: str, answer: str) -> Fact:
        spellings = [self._ids(f" {answer}").tolist(), self._ids(answer).tolist()]
        return Fact(self._ids(statement), self._ids(question), spellings, answer)

    def _ids(self, text: str) -> Tensor:
        return torch.tensor(list(self._encode(text)), dtype=torch.long)

    @staticmethod
    def _subjects(count: int, generator: torch.Generator) -> list[str]:
        adjectives, nouns = _ADJECTIVES.split(), _NOUNS.split()
        most = len(adjectives) * len(nouns)
        if not 1 <= count <= most:
            raise UserError(f"num_needles must be in 1..{most} in this vocabulary, got {count}")
        chosen = torch.randperm(most, generator=generator)[:count].tolist()
        return [f"{adjectives[i // len(nouns)]} {nouns[i % len(nouns)]}" for i in chosen]

    @staticmethod
    def _numbers(count: int, digits: int, generator: torch.Generator) -> list[str]:
        """Different numbers of exactly so many digits."""
        low, high = (10 ** (digits - 1)) if digits > 1 else 0, 10**digits
        if not 1 <= count <= high - low:
            raise UserError(f"number of values must be in 1..{high - low} with {digits} digits, got {count}")
        chosen: dict[int, None] = {}
        while len(chosen) < count:
            chosen[int(torch.randint(low, high, (), generator=generator))] = None
        return [str(number) for number in chosen]

    @staticmethod
    def _names(count: int, generator: torch.Generator) -> list[str]:
        """Different variable names of five capital letters."""
        if count < 1:
            raise UserError(f"num_chains * num_hops must be at least 1, got {count}")
        chosen: dict[str, None] = {}
        while len(chosen) < count:
            letters = torch.randint(0, 26, (5,), generator=generator).tolist()
            chosen["".join(chr(ord("A") + i) for i in letters)] = None
        return list(chosen)
