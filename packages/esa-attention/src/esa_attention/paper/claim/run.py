"""Both experiments, one after the other."""

from __future__ import annotations

from pathlib import Path

from effkit.papers import Claim
from esa_attention.paper.claim.found import Found
from esa_attention.paper.claim.needles import LENGTH, find_needles
from esa_attention.paper.claim.text import TRAINING_STEPS, read_on

__all__ = ["run_claim"]


def run_claim(run_dir: Path, length: int = LENGTH, steps: int = TRAINING_STEPS) -> Claim:
    """Run both experiments.

    Args:
        run_dir: Gets the pictures.
        length: Tokens of the context with the needles; the claim is that of the default.
        steps: Training steps of the byte-level model; the same.

    Returns:
        Judged figures, tables and pictures.
    """
    found = Found()
    tables = [find_needles(found, length)]
    text_tables, figures, notes = read_on(found, steps, run_dir)
    return Claim(found.rows, figures, tables + text_tables, notes)
