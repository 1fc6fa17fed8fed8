"""The laptop claim: its intervals, its bookkeeping on shortened runs, and (slow) the claim itself."""

import math

import pytest
import torch

from effkit.errors import UserError
from effkit.papers import ClaimRun
from effkit.progress import listening
from kd_autoaug.paper import claim as claims
from kd_autoaug.paper.claim import FULL, SHORT, run_claim
from kd_autoaug.paper.digits.runs import Runs, Trained
from kd_autoaug.paper.digits.statistics import interval
from kd_autoaug.paper.digits.train import compose, train_digits, train_teacher
from kd_autoaug.paper.digits.ways import CONTROLS, METHODS, MILD, STRONG


def test_intervals_are_students():
    from scipy import stats

    values = [1.0, 2.5, 2.0, 4.0, 3.5, 0.5, 2.2]
    for count in range(2, len(values) + 1):
        found = interval(values[:count])
        low, high = stats.t.interval(0.95, count - 1, loc=found.mean, scale=stats.sem(values[:count]))
        assert found.half == pytest.approx((high - low) / 2, rel=3e-4)  # the table has four digits
        assert found.low + found.high == pytest.approx(low + high)
    many = interval([float(i) for i in range(21)])
    assert many.half == pytest.approx(stats.t.ppf(0.975, 20) * stats.sem(range(21)), rel=1e-3)
    with pytest.raises(UserError, match="1 runs give no interval"):
        interval([1.0])


def test_differences_are_paired_within_seeds():
    table = {("CE", MILD): [98, 97], ("CE", STRONG): [90, 87], ("KD", MILD): [98.5, 97], ("KD", STRONG): [96, 95]}
    runs = Runs(
        [Trained(m, s, seed, a, 0.5) for (m, s), found in table.items() for seed, a in enumerate(found)], [98, 97]
    )
    assert runs.cost() == [8, 10]
    assert runs.gain("KD", STRONG) == [6, 8]
    assert runs.interaction() == [5.5, 8]
    assert runs.outside(STRONG) == 0.5


def test_runs_of_a_seed_share_their_split_and_differ_in_method():
    mild, strong = compose("CE", 0.3, 4), compose("KD", 2.0, 4)
    assert mild.data.seed == strong.data.seed == mild.seed == 4
    assert (mild.policy.m, strong.policy.m) == (0.3, 2.0)
    assert mild.optimizer == strong.optimizer
    assert strong.loss.temperature == 2.0
    assert (strong.loss.weight, strong.loss.ce_weight, strong.loss.k) == (1.0, 1.0, -1)
    assert compose("CE, every operator at full strength", 2.0, 0).policy.mstd == 0


def test_a_run_repeats_exactly():
    words = ("trainer.max_epochs=2", "threads=1")
    teacher, found = train_teacher(0, *words)
    first, again = (train_digits("KD", 1.0, 0, teacher, *words) for _ in range(2))
    assert first == again
    assert 0 < first.outside < 1
    assert train_teacher(0, *words)[1] == found
    assert math.isnan(train_digits("CE", 1.0, 0, None, *words).outside)


@pytest.mark.parametrize("full", [False, True])
def test_a_shortened_claim_reports_all_of_it(tmp_path, full):
    told, threads = [], torch.get_num_threads()
    with listening(lambda text, share: told.append(share)):
        claim = run_claim(ClaimRun(tmp_path, full), "trainer.max_epochs=1", seeds=2, sizes=[(3, 3), (8, 9)])
    assert torch.get_num_threads() == threads
    judged = {row.metric: row for row in claim.rows}
    assert judged["differing bytes"].verdict == "match"
    assert judged["pictures compared"].ours > 300
    assert sum(row.paper is not None for row in claim.rows) == 7
    assert judged["KD restores at M=2"].verdict == "differs"  # nets of one epoch do not pass for trained ones
    assert claim.figures[0].read_bytes()[:4] == b"\x89PNG"
    assert told == sorted(told)
    assert all(0 <= share <= 1 for share in told)
    accuracies, _, *controls, every = claim.tables
    assert [row[0] for row in accuracies.rows] == list(METHODS)
    assert [[row[0] for row in table.rows] for table in controls] == ([["CE", "KD", *CONTROLS]] if full else [])
    assert len(every.rows) == 1 + (3 * len(METHODS) + len(CONTROLS) if full else len(SHORT.cells))
    assert any("Short form" in note for note in claim.notes) != full


def test_the_short_form_asks_for_the_same_with_fewer_runs():
    assert set(SHORT.cells) < set(FULL.cells)
    assert SHORT.seeds < FULL.seeds
    assert SHORT.nothing <= claims.RESTORED  # label smoothing may not gain what is asked of distillation


def test_a_stopped_claim_goes_on(tmp_path, monkeypatch):
    options = {"seeds": 2, "sizes": [(3, 3)]}
    whole = run_claim(ClaimRun(tmp_path / "whole", stamp={"code": 1}), "trainer.max_epochs=1", **options)

    def stopped(sizes):
        raise KeyboardInterrupt

    parity = claims._parity
    monkeypatch.setattr(claims, "_parity", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_claim(ClaimRun(tmp_path / "part", stamp={"code": 1}), "trainer.max_epochs=1", **options)
    monkeypatch.setattr(claims, "_parity", parity)
    monkeypatch.setattr(claims, "_seed", stopped)
    run = ClaimRun(tmp_path / "part", stamp={"code": 1})
    again = run_claim(run, "trainer.max_epochs=1", **options)
    assert [part.kept for part in run.parts.values()] == [True, True, False]
    assert [t.to_dict() for t in again.tables] == [t.to_dict() for t in whole.tables]
    figures = [[row.ours for row in claim.rows if row.metric != "training time"] for claim in (whole, again)]
    assert figures[0] == figures[1]


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True])
def test_the_claim_holds(tmp_path, full):
    claim = run_claim(ClaimRun(tmp_path, full))
    assert [row.metric for row in claim.rows if row.verdict == "differs"] == []


@pytest.mark.slow
def test_the_claim_fails_without_distillation(tmp_path):
    """Students that never hear their teacher: nothing is restored, and the claim says so."""
    claim = run_claim(ClaimRun(tmp_path), "loss.weight=0", sizes=[(3, 3)])
    assert [row.metric for row in claim.rows if row.verdict == "differs"] == [
        "KD restores at M=2",
        "KD restores at M=2, 95 % interval, lower end",
        "label smoothing gains at M=2, 95 % interval, upper end",
        "KD gains more at M=2 than at M=0.3, 95 % interval, lower end",
    ]
