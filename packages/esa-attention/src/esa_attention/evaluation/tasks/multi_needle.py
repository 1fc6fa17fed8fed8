"""Many needles in one haystack, asked one by one, or all at once where a question is a single token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effkit.errors import UserError
from esa_attention.evaluation.tasks.sample import Sample, build_context, seeded, spread
from esa_attention.evaluation.tasks.vocab import TaskVocab

__all__ = ["multi_needle", "one_block"]


def multi_needle(vocab: TaskVocab, length: int, num_needles: int = 32, seed: int = 0) -> list[Sample]:
    """Hide facts all over the context; every sample asks for one of them.

    Args:
        vocab: Symbols or English.
        length: Tokens of the context, exactly.
        num_needles: Facts with different keys and values; at most the keys of the vocabulary.
        seed: Of needles, places and filler.

    Returns:
        One sample for every needle, in order of depth. All hold the same context tensor, so that it is read only once
        (:func:`~esa_attention.evaluation.tasks.runner.run_samples`).

    Raises:
        UserError: If there are more needles than keys, or ``length`` has no room for them.
    """
    generator = seeded(seed)
    facts = vocab.facts(num_needles, generator)
    depths = spread(num_needles, generator)
    context, positions = build_context(vocab, facts, depths, length, generator)
    return [
        Sample(
            context,
            fact.question,
            fact.answers,
            {"task": "multi_needle", "length": length, "depth": depth, "seed": seed, "positions": [position]},
            max_new_tokens=fact.room,
            answer_texts=[fact.text] if fact.text else [],
        )
        for fact, depth, position in zip(facts, depths, positions, strict=True)
    ]


def one_block(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    """Ask all questions of one context in a single block: every position of it answers its own token.

    This is the hardest case for a selection that a whole chunk shares: each of ``n`` queries lifts the score of its own
    best key to the same value, so ties decide as soon as fewer keys are kept than queries and neighbours compete.

    Args:
        samples: From :func:`multi_needle`, with questions and answers of one token.

    Returns:
        Context ``(length,)``, question block ``(n,)`` and the answer due at each of its positions ``(n,)``.

    Raises:
        UserError: If there is no sample, the contexts differ, or a question or answer is longer than one token.
    """
    if not samples:
        raise UserError("samples must hold at least one sample, got none")
    context = samples[0].context_ids
    for sample in samples:
        if sample.context_ids is not context:
            raise UserError("samples must share one context to be asked in one block, got several")
        if len(sample.question_ids) != 1 or len(sample.answers[0]) != 1:
            raise UserError(
                "samples must have questions and answers of one token to be asked in one block, got "
                f"{len(sample.question_ids)} and {len(sample.answers[0])} tokens"
            )
    questions = torch.cat([sample.question_ids for sample in samples])
    return context, questions, torch.tensor([sample.answers[0][0] for sample in samples])
