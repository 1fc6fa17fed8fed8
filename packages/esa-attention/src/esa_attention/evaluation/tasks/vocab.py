"""The two languages in which the tasks are asked: symbols for the constructed model, English for all others.

Both offer the same six things, so that a task is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from effkit.errors import UserError
from esa_attention.evaluation.tasks.facts import Fact

__all__ = ["SymbolVocab", "TaskVocab"]


class TaskVocab(Protocol):
    """What a task needs of a vocabulary. Everything random comes from the generator handed in."""

    decode: Callable[[Sequence[int]], str] | None
    """Ids to text, or ``None`` where answers are compared as ids."""

    @property
    def prefix(self) -> Tensor:
        """Ids before every context, e.g. the begin token; may be empty."""
        ...

    @property
    def answer_ids(self) -> Tensor | None:
        """The only ids an answer of variable tracking is chosen from, or ``None``."""
        ...

    def haystack(self, num_tokens: int, generator: torch.Generator) -> Tensor:
        """``(num_tokens,)`` filler ids."""
        ...

    def facts(self, count: int, generator: torch.Generator) -> list[Fact]:
        """Facts with different keys and different values."""
        ...

    def secret(self, digits: int, generator: torch.Generator) -> Fact:
        """A pass key of ``digits`` digits or symbols."""
        ...

    def stars(self, count: int, generator: torch.Generator) -> list[Fact]:
        """Facts about one subject with different values; they share the question."""
        ...

    def chains(self, num_chains: int, num_hops: int, generator: torch.Generator) -> list[list[Fact]]:
        """Chains of assignments; the facts of a chain share question and answers."""
        ...


class SymbolVocab:
    """Keys, values and filler as single tokens, for the model :mod:`~esa_attention.evaluation.models.constructed`.

    Id 0 stays unused, 1 begins every context; then come the keys, twice as many values, and the rest is filler: with
    the defaults keys 2-33, values 34-97, filler 98-127. The begin token is there because the first token of all has no
    predecessor and takes itself for one: a key in its place would answer itself.

    Args:
        vocab_size: Tokens of the model.
        num_keys: Different keys; at most ``(vocab_size - 3) // 3``, so that one filler token is left.

    Raises:
        UserError: If no filler would be left.
    """

    decode: Callable[[Sequence[int]], str] | None = None

    def __init__(self, vocab_size: int = 128, num_keys: int = 32) -> None:
        most = (vocab_size - 3) // 3
        if not 1 <= num_keys <= most:
            raise UserError(f"num_keys must be in 1..{most} for vocab_size={vocab_size}, got {num_keys}")
        self.vocab_size, self.num_keys, self.num_values = vocab_size, num_keys, 2 * num_keys
        self.keys = torch.arange(2, 2 + num_keys)
        self.values = torch.arange(2 + num_keys, 2 + 3 * num_keys)
        self.filler = torch.arange(2 + 3 * num_keys, vocab_size)

    @classmethod
    def for_model(cls, model: Any) -> SymbolVocab:
        """The vocabulary of a constructed model: a quarter of its tokens are keys."""
        size = int(model.config.vocab_size)
        return cls(size, size // 4)

    @property
    def prefix(self) -> Tensor:
        """The begin token."""
        return torch.tensor([1])

    @property
    def answer_ids(self) -> Tensor:
        """Keys and values."""
        return torch.cat([self.keys, self.values])

    def haystack(self, num_tokens: int, generator: torch.Generator) -> Tensor:
        """Filler tokens, uniform and independent."""
        return self.filler[torch.randint(0, len(self.filler), (num_tokens,), generator=generator)]

    def facts(self, count: int, generator: torch.Generator) -> list[Fact]:
        """``key value``, asked by the key."""
        keys = self._draw("num_needles", self.keys, count, generator)
        values = self._draw("num_needles", self.values, count, generator)
        return [self._fact(keys[i : i + 1], values[i : i + 1]) for i in range(count)]

    def secret(self, digits: int, generator: torch.Generator) -> Fact:
        """``key value value ...`` with different values: each is found by the one before it."""
        key = self._draw("num_keys", self.keys, 1, generator)
        return self._fact(key, self._draw("digits", self.values, digits, generator))

    def stars(self, count: int, generator: torch.Generator) -> list[Fact]:
        """``key value`` with one key: every value answers the key equally well."""
        key = self._draw("num_keys", self.keys, 1, generator)
        values = self._draw("num_stars", self.values, count, generator)
        return [self._fact(key, values[i : i + 1]) for i in range(count)]

    def chains(self, num_chains: int, num_hops: int, generator: torch.Generator) -> list[list[Fact]]:
        """``a b``, ``b c``, ``c value``, asked by ``a``, answered by ``b c value``."""
        keys = self._draw("num_chains * num_hops", self.keys, num_chains * num_hops, generator)
        values = self._draw("num_chains", self.values, num_chains, generator)
        links = torch.cat([keys.view(num_chains, num_hops), values[:, None]], 1)
        return [[Fact(link[i : i + 2], link[:1], [link[1:].tolist()]) for i in range(num_hops)] for link in links]

    @staticmethod
    def _fact(key: Tensor, value: Tensor) -> Fact:
        return Fact(torch.cat([key, value]), key, [value.tolist()])

    @staticmethod
    def _draw(field: str, ids: Tensor, count: int, generator: torch.Generator) -> Tensor:
        if not 1 <= count <= len(ids):
            raise UserError(f"{field} must be in 1..{len(ids)} in this vocabulary, got {count}")
        return ids[torch.randperm(len(ids), generator=generator)[:count]]
