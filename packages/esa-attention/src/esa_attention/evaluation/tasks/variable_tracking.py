"""Variable tracking: assignments that refer to one another, to be followed over the whole context.

After the task of that name in RULER (Hsieh and others, 2024), written anew.
"""

from __future__ import annotations

from effkit.errors import UserError
from esa_attention.evaluation.tasks.sample import Sample, build_context, seeded, spread
from esa_attention.evaluation.tasks.vocab import TaskVocab

__all__ = ["variable_tracking"]


def variable_tracking(vocab: TaskVocab, length: int, num_hops: int = 4, num_chains: int = 1, seed: int = 0) -> Sample:
    """Scatter one or more chains of assignments and ask for the first chain.

    In English a chain is ``VAR A = 12345``, ``VAR B = VAR A``, ``VAR C = VAR B`` ..., and the question asks for all
    variables with the number; the score is the share of them that is named.

    In symbols a chain is ``a b``, ``b c``, ``c value``; asked for ``a``, the answer is ``b c value``, decoded greedily
    one hop a token. The choice is restricted to keys and values (``allowed_ids``): every link but the first stands
    twice in the context, as ``a b`` and as ``b c``, and an induction head finds both; what follows ``b`` in ``a b`` is
    a filler token, which gets the same logit as ``c``. For this reason a filler token stands behind every statement.

    Args:
        vocab: Symbols or English.
        length: Tokens of the context, exactly.
        num_hops: Assignments in a chain.
        num_chains: Chains; all but the first only distract.
        seed: Of names, places and filler.

    Returns:
        A sample; its statements stand in the order of their chain.

    Raises:
        UserError: If there are more assignments than keys, or ``length`` has no room for them.
    """
    if num_hops < 1 or num_chains < 1:
        raise UserError(f"num_hops and num_chains must be at least 1, got {num_hops} and {num_chains}")
    generator = seeded(seed)
    chains = vocab.chains(num_chains, num_hops, generator)
    # Hop by hop, all chains side by side: every chain reaches over the whole context.
    facts = [chain[hop] for hop in range(num_hops) for chain in chains]
    depths = spread(len(facts), generator)
    context, positions = build_context(vocab, facts, depths, length, generator, tail=1)
    asked = chains[0]
    texts = [fact.text for fact in asked if fact.text]
    return Sample(
        context,
        asked[0].question,
        [fact.answers[0] for fact in asked] if texts else asked[0].answers,
        {
            "task": "variable_tracking",
            "length": length,
            "num_hops": num_hops,
            "num_chains": num_chains,
            "seed": seed,
            "positions": positions[::num_chains],
        },
        scoring="set" if texts else "exact",
        max_new_tokens=sum(fact.room for fact in asked) if texts else num_hops,
        allowed_ids=vocab.answer_ids,
        answer_texts=texts,
    )
