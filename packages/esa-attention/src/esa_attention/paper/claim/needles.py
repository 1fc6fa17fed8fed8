"""The first experiment: facts far back, asked of a model that knows every answer it can see."""

from __future__ import annotations

import time
from typing import Any

from effkit.progress import part
from effkit.report import Table
from effkit.rows import Kind
from esa_attention.commands.methods import method_setup
from esa_attention.commands.subject import Subject
from esa_attention.compression.compressor import Compressors
from esa_attention.evaluation.tasks.multi_needle import multi_needle, one_block
from esa_attention.evaluation.tasks.runner import ask, ask_block, feed, score
from esa_attention.integration.apply import apply_esa
from esa_attention.paper.claim.found import SHARES, Found, claim_subject

__all__ = ["LENGTH", "NEEDLES", "find_needles"]

LENGTH, NEEDLES = 65_536, 32
PROXIMITIES = (0, 1, 3)


def find_needles(found: Found, length: int) -> Table:
    """Hide 32 facts and ask for them with every method.

    Args:
        found: Gets the judged figures.
        length: Tokens of the context.
    """
    subject, group = claim_subject("needle", "task=multi_needle")
    samples = multi_needle(subject.vocab(), length, NEEDLES, seed=0)
    made: dict[str, Compressors] = {}
    rows: list[list[Any]] = []
    methods = ("esa", "exact", "sinks_local", "full")
    limits: dict[str, tuple[float, Kind] | None] = {
        "esa": (NEEDLES, "at_least"),
        "exact": (NEEDLES, "at_least"),
        "sinks_local": (1, "at_most"),
        "full": None,
    }
    names = {
        "esa": "ESA, closed form",
        "exact": "ESA, exact scores",
        "sinks_local": "sinks + local",
        "full": "full attention",
    }
    for number, method in enumerate(methods):
        share = SHARES["needles"] / len(methods)
        start = time.perf_counter()
        with part(names[method], share * number, share * (number + 1)):
            one_by_one, in_blocks = _answers(subject, method, group, made, samples)
        seconds = time.perf_counter() - start
        limit = limits[method]
        words = f"task=multi_needle task.options.num_needles={NEEDLES} lengths=[{length}] methods=[{method}]"
        found.add(
            names[method],
            f"of {NEEDLES} facts in {length:,} tokens",
            one_by_one,
            limit[0] if limit else None,
            kind=limit[1] if limit else "at_least",
            seconds=seconds,
            command=f"esa-attention needle {words}",
            source="our claim" if limit else "shown beside it",
        )
        for proximity, count in in_blocks.items():
            found.add(
                names[method], f"all questions in one block, proximity {proximity}", count, NEEDLES, seconds=seconds
            )
        rows.append([names[method], one_by_one, *(in_blocks.get(p) for p in PROXIMITIES), seconds])
    c = subject.config
    note = (
        f"Initial {c.num_initial}, selected {c.num_selected}, local {c.num_local}, chunk {c.chunk_size}; rank "
        f"{subject.rank} of {subject.shape.key_dim}. Full attention meets positions its rotary embedding was not built "
        "for."
    )
    columns = ["method", "one by one", *(f"one block, proximity {p}" for p in PROXIMITIES), "seconds"]
    return Table(f"{NEEDLES} facts in {length:,} tokens", columns, rows, note)


def _answers(
    subject: Subject, method: str, group: dict[str, Any], made: dict[str, Compressors], samples: list[Any]
) -> tuple[int, dict[int, int]]:
    """How many questions are answered, one by one and, under ESA, all in one block."""
    config, maps = method_setup(subject, method, group, made)
    with apply_esa(subject.model, config, maps) as handle:
        cache = handle.new_cache(reserve=len(samples[0].context_ids) + 64)
        feed(subject.model, samples[0].context_ids, cache, block=1024)
        right = sum(score(s, ask(subject.model, cache, s.question_ids)) for s in samples)
        in_blocks: dict[int, int] = {}
        if method in ("esa", "exact"):
            _, questions, answers = one_block(samples)
            for proximity in PROXIMITIES:
                cache.reconfigure(proximity=proximity)
                in_blocks[proximity] = int((ask_block(subject.model, cache, questions) == answers).sum())
    return int(right), in_blocks
