"""The laptop-scale claim: what ESA promises, on two models small enough for a CPU.

A model with hand-written weights knows the answer to every question it is asked, so that what is lost is lost by
attention: 32 facts in 65,536 tokens, 128 times what its rotary embedding can tell apart (16 in 16,384 in the short
form). A language model trained here on text that ships with Python shows what happens to ordinary prediction past the
trained context, and how well compressed scores find what exact scores would.
"""

from __future__ import annotations

from effkit.papers import Claim, ClaimRun, Findings
from esa_attention.paper.claim_form import FULL, SHORT
from esa_attention.paper.claim_needles import find_needles
from esa_attention.paper.claim_text import read_on

__all__ = ["run_claim"]


def run_claim(run: ClaimRun) -> Claim:
    """Run both experiments.

    Args:
        run: Where it writes, and in which form; a part for each method that looks for needles, one each for training,
            reading and recall.

    Returns:
        Judged figures, tables and pictures.
    """
    form = FULL if run.full else SHORT
    found = Findings()
    tables = [find_needles(run, form, found)]
    text_tables, figures, notes = read_on(run, form, found)
    return Claim(found.rows, figures, tables + text_tables, [*notes, *([form.note] if form.note else [])])
