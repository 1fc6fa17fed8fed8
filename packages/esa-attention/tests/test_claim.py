"""The laptop-scale claim, made small: what it says of the constructed model holds at any length."""

from pathlib import Path

import pytest

from effkit.papers import Claim, ClaimRun
from esa_attention.commands import methods
from esa_attention.paper import claim as module
from esa_attention.paper import claim_needles, claim_text
from esa_attention.paper.claim import run_claim
from esa_attention.paper.claim_form import FULL, SHORT, Form

SMALL = Form(
    length=3000,
    num_needles=32,
    proximities=(0, 1, 3),
    training=("model.options.steps=20",),
    text_length=1024,
)


TINY = Form(
    length=1500,
    num_needles=8,
    proximities=(1,),
    training=("model.options.steps=2", "+model.options.context=64"),
    sizes=SHORT.sizes,
    text_length=256,
    windows=4,
)


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[Path, Claim]:
    """The claim, and the folder of its run."""
    folder = tmp_path_factory.mktemp("claim")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SHORT", SMALL)
        return folder, run_claim(ClaimRun(folder, stamp={"code": 1}))


def test_the_claim_in_small(first):
    _, claim = first
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


def test_a_second_run_keeps_every_part_and_finds_the_same(first, monkeypatch):
    folder, claim = first
    monkeypatch.setattr(module, "SHORT", SMALL)
    for part in (claim_needles, claim_text):
        monkeypatch.setattr(part, "claim_subject", lambda *_, **__: pytest.fail("computed again"))
    run = ClaimRun(folder, stamp={"code": 1})
    second = run_claim(run)
    assert [part.name for part in run.parts.values() if part.kept] == list(run.parts)
    assert len(run.parts) == 7
    assert [row.to_dict() for row in second.rows] == [row.to_dict() for row in claim.rows]
    assert [table.to_dict() for table in second.tables] == [table.to_dict() for table in claim.tables]


def test_without_selection_and_without_training_the_claim_differs(tmp_path, monkeypatch):
    """Thresholds can fail: ESA that selects nothing, a model that has learnt nothing, maps that rank at random."""
    setup, build = methods.method_setup, claim_text.build_compressors
    monkeypatch.setattr(
        claim_needles, "method_setup", lambda subject, name, *more: setup(subject, "sinks_local", *more)
    )
    monkeypatch.setattr(
        claim_text, "build_compressors",
        lambda subject, group, method: build(subject, group, "key_pca" if method == "closed_form" else "closed_form"),
    )  # fmt: skip
    monkeypatch.setattr(module, "SHORT", TINY)
    claim = run_claim(ClaimRun(tmp_path))
    differs = {(row.name, row.metric) for row in claim.rows if row.verdict == "differs"}
    assert {
        ("ESA, closed form", "of 8 facts in 1,500 tokens"),
        ("ESA, exact scores", "of 8 facts in 1,500 tokens"),
        ("byte-level model, stock model", "nats per byte inside the 64 of training"),
        ("recall of exact top-k, closed form", "above key_pca"),
    } <= differs


def test_both_forms_ask_what_the_context_cannot_answer():
    for form in (SHORT, FULL):
        assert form.length >= 32 * 512  # positions that the constructed model can tell apart
        assert form.num_needles * 128 < form.length
    assert SHORT.note
    assert not FULL.note
