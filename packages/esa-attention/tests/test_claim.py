"""The laptop-scale claim, made small: what it says of the constructed model holds at any length."""

from esa_attention.paper.claim import text as module
from esa_attention.paper.claim.run import run_claim


def test_the_claim_in_small(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TEXT_LENGTH", 1024)
    claim = run_claim(tmp_path, length=3000, steps=20)
    rows = {(row.name, row.metric): row for row in claim.rows}
    for name in ("ESA, closed form", "ESA, exact scores"):
        assert rows[name, "of 32 facts in 3,000 tokens"].ours == 32
        for proximity in (0, 1, 3):
            assert rows[name, f"all questions in one block, proximity {proximity}"].verdict == "match"
    # The window holds the last 128 tokens, and with them a needle or two of so short a context.
    assert rows["sinks + local", "of 32 facts in 3,000 tokens"].ours <= 3
    assert rows["full attention", "of 32 facts in 3,000 tokens"].ours < 32
    for other in ("sgd_paper", "key_pca"):
        assert rows["recall of exact top-k, closed form", f"above {other}"].verdict == "match"
    assert all(path.is_file() for path in claim.figures)
    assert len(claim.tables) == 3
    assert len(claim.notes) == 2
