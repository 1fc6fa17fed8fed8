"""One needle in a haystack: the plainest retrieval test."""

from __future__ import annotations

from esa_attention.evaluation.tasks.sample import Sample, build_context, seeded
from esa_attention.evaluation.tasks.vocab import TaskVocab

__all__ = ["needle"]


def needle(vocab: TaskVocab, length: int, depth: float = 0.5, seed: int = 0) -> Sample:
    """Hide one fact at a given depth and ask for it.

    Args:
        vocab: Symbols or English.
        length: Tokens of the context, exactly.
        depth: Where the needle is, 0 the front and 1 the end.
        seed: Of needle and filler.

    Raises:
        UserError: If ``depth`` is outside 0..1 or ``length`` has no room for the needle.

    Example:
        >>> from esa_attention.evaluation.tasks.vocab import SymbolVocab
        >>> len(needle(SymbolVocab(), length=512).context_ids)
        512
    """
    generator = seeded(seed)
    (fact,) = vocab.facts(1, generator)
    context, positions = build_context(vocab, [fact], [depth], length, generator)
    return Sample(
        context,
        fact.question,
        fact.answers,
        {"task": "needle", "length": length, "depth": depth, "seed": seed, "positions": positions},
        max_new_tokens=fact.room,
        answer_texts=[fact.text] if fact.text else [],
    )
