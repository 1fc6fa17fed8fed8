"""A pass key of several digits: retrieval of a whole string, token after token."""

from __future__ import annotations

from esa_attention.evaluation.tasks.sample import Sample, build_context, seeded
from esa_attention.evaluation.tasks.vocab import TaskVocab

__all__ = ["passkey"]


def passkey(vocab: TaskVocab, length: int, depth: float = 0.5, digits: int = 5, seed: int = 0) -> Sample:
    """Hide a pass key at a given depth and ask for it.

    Args:
        vocab: Symbols (``digits`` different values after a key) or English.
        length: Tokens of the context, exactly.
        depth: Where the key is, 0 the front and 1 the end.
        digits: How long it is.
        seed: Of key and filler.

    Raises:
        UserError: If ``depth`` or ``digits`` is out of range or ``length`` has no room for the key.
    """
    generator = seeded(seed)
    fact = vocab.secret(digits, generator)
    context, positions = build_context(vocab, [fact], [depth], length, generator)
    return Sample(
        context,
        fact.question,
        fact.answers,
        {"task": "passkey", "length": length, "depth": depth, "digits": digits, "seed": seed, "positions": positions},
        max_new_tokens=fact.room,
        answer_texts=[fact.text] if fact.text else [],
    )
