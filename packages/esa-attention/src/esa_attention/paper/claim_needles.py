"""The first experiment: facts far back, asked of a model that knows every answer it can see."""

from __future__ import annotations

import time
from typing import Any

from effkit.papers import ClaimRun, Findings
from effkit.progress import part
from effkit.report import Table
from effkit.rows import Kind
from esa_attention.commands.methods import method_setup
from esa_attention.evaluation.tasks.multi_needle import multi_needle, one_block
from esa_attention.evaluation.tasks.runner import ask, ask_block, feed, score
from esa_attention.integration.apply import apply_esa
from esa_attention.paper.claim_form import SHARES, Form, claim_subject

__all__ = ["find_needles"]

NAMES = {
    "esa": "ESA, closed form",
    "exact": "ESA, exact scores",
    "sinks_local": "sinks + local",
    "full": "full attention",
}


def find_needles(run: ClaimRun, form: Form, found: Findings) -> Table:
    """Hide facts and ask for them with every method, each a part of the run.

    Args:
        run: The run.
        form: How many facts, in how many tokens.
        found: Gets the judged figures.
    """
    count, length = form.num_needles, form.length
    limits: dict[str, tuple[float | None, Kind]] = {
        "esa": (count, "at_least"),
        "exact": (count, "at_least"),
        "sinks_local": (1, "at_most"),
        "full": (None, "at_least"),  # shown beside it
    }
    rows: list[list[Any]] = []
    note = ""
    share = SHARES["needles"] / len(NAMES)
    for number, (method, name) in enumerate(NAMES.items()):
        with part(name, share * number, share * (number + 1)):
            answers = run.part(f"needles-{method}", _answers, method, form)
        seconds, blocks, note = answers["seconds"], answers["in one block"], answers["note"]
        words = f"task=multi_needle task.options.num_needles={count} lengths=[{length}] methods=[{method}]"
        figure, kind = limits[method]
        metric = f"of {count} facts in {length:,} tokens"
        command = f"esa-attention needle {words}"
        found.add(name, metric, answers["one by one"], figure, kind, seconds=seconds, command=command)
        for proximity, right in zip(form.proximities, blocks, strict=False):
            metric = f"all questions in one block, proximity {proximity}"
            found.add(name, metric, right, count, seconds=seconds)
        rows.append([name, answers["one by one"], *(blocks or [None] * len(form.proximities)), seconds])
    columns = ["method", "one by one", *(f"one block, proximity {p}" for p in form.proximities), "seconds"]
    return Table(f"{count} facts in {length:,} tokens", columns, rows, note)


def _answers(method: str, form: Form) -> dict[str, Any]:
    """How many questions are answered, one by one and, under ESA, all in one block under each proximity."""
    subject, group = claim_subject("needle", "task=multi_needle")
    samples = multi_needle(subject.vocab(), form.length, form.num_needles, seed=0)
    start = time.perf_counter()
    config, maps = method_setup(subject, method, group, {})
    with apply_esa(subject.model, config, maps) as handle:
        cache = handle.new_cache(reserve=len(samples[0].context_ids) + 64)
        feed(subject.model, samples[0].context_ids, cache, block=1024)
        right = sum(score(s, ask(subject.model, cache, s.question_ids)) for s in samples)
        in_blocks: list[int] = []
        if method in ("esa", "exact"):
            _, questions, answers = one_block(samples)
            for proximity in form.proximities:
                cache.reconfigure(proximity=proximity)
                in_blocks.append(int((ask_block(subject.model, cache, questions) == answers).sum()))
    c = subject.config
    note = (
        f"Initial {c.num_initial}, selected {c.num_selected}, local {c.num_local}, chunk {c.chunk_size}; rank "
        f"{subject.rank} of {subject.shape.key_dim}. Full attention meets positions its rotary embedding was not built "
        "for."
    )
    seconds = time.perf_counter() - start
    return {"one by one": int(right), "in one block": in_blocks, "seconds": seconds, "note": note}
