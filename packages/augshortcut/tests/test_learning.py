"""A small ViT with paths learns real digits, by the calls of ``augshortcut train experiment=digits``; and the claim."""

from __future__ import annotations

import pytest

from augshortcut.paper.claim import FULL, KINDS, SHORT, run_claim, train_digits
from effkit.papers import ClaimRun

TINY = ("trainer.max_epochs=1", "data.limit=96", "model.depth=2")


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    words = ("trainer.max_epochs=6", "model.depth=2", "data.batch_size=16")
    return train_digits("paths", 0, tmp_path_factory.mktemp("run"), *words)


@pytest.mark.slow
def test_a_short_run_learns(learnt):
    assert len(learnt["curve"]) == 6
    assert learnt["accuracy"] == pytest.approx(learnt["curve"][-1])
    assert learnt["accuracy"] >= 50  # chance is 10
    assert all(row["holds"] for row in learnt["bound"])
    assert len(learnt["diversity"]) == 2


def test_claim_judges_and_shows_both(tmp_path):
    """With one epoch on 96 pictures the floor is out of reach, and the claim must say so."""
    claim = run_claim(ClaimRun(tmp_path), *TINY)
    rows = {(row.name, row.metric): row for row in claim.rows}
    for kind in KINDS:
        judged = rows[f"{kind} on digits, 1 seed", "test accuracy"]
        assert (judged.paper, judged.verdict) == (SHORT.floor, "differs")
        assert rows[f"{kind} on digits, 1 seed", "d_M, last block"].verdict == "nothing to compare"
    others = [row for row in claim.rows if row.metric != "test accuracy" and row.verdict == "differs"]
    assert others == []
    assert all(path.is_file() for path in claim.figures)
    assert len(claim.figures) == 4
    assert any("upper bound" in note for note in claim.notes)
    assert len(FULL.seeds) >= 3
