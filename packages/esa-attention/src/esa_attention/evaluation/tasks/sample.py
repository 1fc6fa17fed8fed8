"""What every retrieval task produces, and how statements are hidden in filler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from effkit.errors import UserError
from esa_attention.evaluation.tasks.facts import Fact
from esa_attention.evaluation.tasks.vocab import TaskVocab

__all__ = ["Sample", "build_context", "hide", "seeded", "spread"]


@dataclass(frozen=True, eq=False)
class Sample:
    """One question about one context.

    Attributes:
        context_ids: ``(length,)``, int64; the haystack with everything hidden in it.
        question_ids: ``(n,)``, int64; to be fed as a block of its own.
        answers: Under ``exact`` the acceptable answers; under ``set`` the things that all should be named.
        meta: Task, length, seed, positions of the statements and more, for reports.
        scoring: ``exact``: one of ``answers`` was given, 0 or 1. ``set``: the share of ``answers`` that was given.
        max_new_tokens: How many tokens an answer may take.
        allowed_ids: If not ``None``, the only ids an answer is chosen from.
        answer_texts: ``answers`` as text, where the vocabulary has text; scored on text then, because one text has
            several spellings in tokens.
    """

    context_ids: Tensor
    question_ids: Tensor
    answers: list[list[int]]
    meta: dict[str, Any] = field(default_factory=dict)
    scoring: Literal["exact", "set"] = "exact"
    max_new_tokens: int = 1
    allowed_ids: Tensor | None = None
    answer_texts: list[str] = field(default_factory=list)


def spread(count: int, generator: torch.Generator) -> list[float]:
    """Depths in 0..1, ascending: one at random within each of ``count`` equal parts of the context."""
    jitter = torch.rand(count, generator=generator, dtype=torch.float64)
    return [(i + float(jitter[i])) / count for i in range(count)]


def hide(
    statements: Sequence[Tensor],
    depths: Sequence[float],
    haystack: Tensor,
    *,
    prefix: Tensor | None = None,
    tail: int = 0,
) -> tuple[Tensor, list[int]]:
    """Insert statements into filler, with filler between any two of them.

    Args:
        statements: 1-D ids, in order of depth.
        depths: Where each goes, 0 the front and 1 the end of the filler, ascending.
        haystack: 1-D filler ids; all of it is used.
        prefix: Ids before everything, for instance the begin token.
        tail: At least so many filler tokens stand after the last statement.

    Returns:
        The ids, as long as all parts together, and the index of the first token of every statement.

    Raises:
        UserError: If a depth is outside 0..1 or the depths do not ascend.
    """
    if any(not 0.0 <= depth <= 1.0 for depth in depths) or list(depths) != sorted(depths):
        raise UserError(f"depth must lie in 0..1 and ascend, got {', '.join(f'{d:g}' for d in depths)}")
    count = len(statements)
    last = len(haystack) - tail
    assert last >= count - 1, "build_context lets no shorter haystack pass"
    slots: list[int] = []
    for i, depth in enumerate(depths):
        earliest = slots[-1] + 1 if slots else 0
        # The end of its own room: the ones behind need one filler token each.
        slots.append(min(max(int(depth * len(haystack)), earliest), last - (count - 1 - i)))
    parts = [] if prefix is None else [prefix]
    positions = []
    here = sum(map(len, parts))
    done = 0
    for slot, statement in zip(slots, statements, strict=True):
        positions.append(here + slot - done)
        parts += [haystack[done:slot], statement]
        here += slot - done + len(statement)
        done = slot
    return torch.cat([*parts, haystack[done:]]), positions


def build_context(
    vocab: TaskVocab,
    facts: Sequence[Fact],
    depths: Sequence[float],
    length: int,
    generator: torch.Generator,
    *,
    tail: int = 0,
) -> tuple[Tensor, list[int]]:
    """Hide facts in as much filler as makes the context exactly ``length`` tokens.

    Args:
        vocab: Gives filler and prefix.
        facts: In order of depth.
        depths: One for every fact; see :func:`hide`.
        length: Tokens of the whole context, statements included, the question not.
        generator: Source of the filler.
        tail: At least so many filler tokens stand after the last statement.

    Returns:
        The context ``(length,)`` and the index of the first token of every statement.

    Raises:
        UserError: If the statements, and the filler between them, do not fit; with the numbers.
    """
    statements = [fact.statement for fact in facts]
    taken = len(vocab.prefix) + sum(map(len, statements))
    least = taken + len(statements) - 1 + tail
    if length < least:
        raise UserError(f"length must be at least {least} tokens for {len(statements)} statements, got {length}")
    filler = vocab.haystack(length - taken, generator)
    return hide(statements, depths, filler, prefix=vocab.prefix, tail=tail)


def seeded(seed: int) -> torch.Generator:
    """A generator on the CPU: the same sample on every device."""
    return torch.Generator().manual_seed(seed)
