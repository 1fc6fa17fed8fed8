"""Counting stars: many facts about one subject, all of which belong in the answer.

After the benchmark of that name (Song and others, 2024), whose settings the ESA paper uses: 128k tokens with 32 stars,
256k with 32 and 16. Its essays are third-party text and not part of this package.
"""

from __future__ import annotations

from esa_attention.evaluation.tasks.sample import Sample, build_context, seeded
from esa_attention.evaluation.tasks.vocab import TaskVocab

__all__ = ["counting_stars"]


def counting_stars(vocab: TaskVocab, length: int, num_stars: int = 32, seed: int = 0) -> Sample:
    """Scatter ``num_stars`` values of one subject over the context and ask for all of them.

    In symbols, one key is followed by a different value every time; asked for the key, the constructed model gives
    exactly these values its largest logits, all equal.

    Args:
        vocab: Symbols or English.
        length: Tokens of the context, exactly.
        num_stars: Different values.
        seed: Of values, places and filler.

    Returns:
        A sample whose score is the share of values named.

    Raises:
        UserError: If there are more stars than values, or ``length`` has no room for them.
    """
    generator = seeded(seed)
    facts = vocab.stars(num_stars, generator)
    depths = [(i + 0.5) / num_stars for i in range(num_stars)]  # evenly, as in the benchmark
    context, positions = build_context(vocab, facts, depths, length, generator)
    texts = [fact.text for fact in facts if fact.text]
    return Sample(
        context,
        facts[0].question,
        [fact.answers[0] for fact in facts],
        {"task": "counting_stars", "length": length, "num_stars": num_stars, "seed": seed, "positions": positions},
        scoring="set",
        max_new_tokens=sum(fact.room for fact in facts) if texts else 1,
        answer_texts=texts,
    )
