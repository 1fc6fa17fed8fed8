"""The claim is one that can fail: each thing that could be broken makes it differ."""

import pytest

from effkit.papers import ClaimRun
from shiftghost_sr.paper import claim
from shiftghost_sr.paper.claim_measured import agreement, counts

GOOD = {
    "agreement": {"edsr_baseline": 1e-15, "vdsr": 1e-15},
    "speed": {"dense": [1.0, 100.0], "ghost": [1.8, 55.0], "deployed": [2.2, 45.0]},
    "dense-0": [33.0, 35.0],
    "default-0": [32.9, 34.9],
    "copy-0": [32.8, 34.9],
    "depthwise-0": [32.9, 34.9],
    "narrow-0": [32.9, 34.9],
}
GOOD |= {f"{name.removesuffix('0')}1": value for name, value in GOOD.items() if name.endswith("-0")}
GOOD["vdsr"] = {"dense": [33.5, 35.5], "converted, not finetuned": [29.0, 31.0], "learned shift": [30.5, 32.5]}


@pytest.fixture(scope="module")
def counted():
    return counts()


@pytest.fixture
def judged(tmp_path, monkeypatch, counted):
    """Verdicts of a claim whose parts have given values."""

    def judge(full=False, at_hand=True, **changes):
        values = {"counts": counted, **GOOD, **changes}
        run = ClaimRun(tmp_path, full=full)
        monkeypatch.setattr(claim, "data_at_hand", lambda *parts: tmp_path if at_hand else None)
        monkeypatch.setattr(run, "part", lambda name, compute, *args: values[name])
        monkeypatch.setattr(claim, "cubic", lambda: [32.0, 34.0])
        monkeypatch.setattr(claim, "psnr", lambda model: values.get("converted", [30.0, 32.0]))
        monkeypatch.setattr(claim, "load_model", lambda path: None)
        monkeypatch.setattr(claim, "_draw", lambda *args: [])
        return [row.verdict for row in claim.run_claim(run).rows]

    return judge


def test_all_is_well(judged):
    assert "differs" not in judged()


def test_a_trained_network_counts_where_it_is_at_hand(judged):
    assert "differs" not in judged(full=True)
    assert len(judged(full=True)) == len(judged(full=True, at_hand=False)) + 4
    assert len(judged(full=False)) < len(judged(full=True, at_hand=False))  # the short form is without other variants
    poor = {**GOOD["vdsr"], "dense": [32.2, 34.2]}
    assert judged(full=True, vdsr=poor).count("differs") == 1


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("agreement", {"edsr_baseline": 1e-9}),
        ("speed", {"dense": [1.0, 100.0], "ghost": [1.1, 90.0], "deployed": [1.2, 80.0]}),
        ("dense-0", [32.2, 34.2]),
        ("default-0", [32.3, 34.3]),
        ("default-0", [32.6, 34.6]),
        ("converted", [32.5, 34.5]),
        ("counts", {"VDSR dense, params": [664_705, 664_704]}),
    ],
)
def test_each_fault_shows(judged, part, value):
    assert judged(**{part: value}).count("differs") >= 1


def test_deployed_networks_agree_and_counts_are_the_tables(counted):
    assert max(agreement().values()) < 1e-12
    assert all(ours == exact for ours, exact in counted.values())
