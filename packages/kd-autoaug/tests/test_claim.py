"""The laptop claim: its intervals, its bookkeeping on shortened runs, and (slow) the claim itself."""

import math

import pytest
import torch

from effkit.errors import UserError
from effkit.progress import listening
from kd_autoaug.paper.claim import MILD, STRONG, Runs, run_claim
from kd_autoaug.paper.claim_statistics import interval
from kd_autoaug.paper.claim_train import CONTROLS, METHODS, Trained, compose, train_digits, train_teacher


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


def test_a_shortened_claim_reports_all_of_it(tmp_path):
    told, threads = [], torch.get_num_threads()
    with listening(lambda text, share: told.append(share)):
        claim = run_claim(tmp_path, "trainer.max_epochs=1", seeds=2, sizes=[(3, 3), (8, 9)])
    assert torch.get_num_threads() == threads
    judged = {row.metric: row for row in claim.rows}
    assert judged["differing bytes"].verdict == "match"
    assert judged["pictures compared"].ours > 300
    assert sum(row.paper is not None for row in claim.rows) == 7
    assert claim.figures[0].read_bytes()[:4] == b"\x89PNG"
    assert told == sorted(told)
    assert all(0 <= share <= 1 for share in told)
    accuracies, _, controls, every = claim.tables
    assert [row[0] for row in accuracies.rows] == list(METHODS)
    assert [row[0] for row in controls.rows] == ["CE", "KD", *CONTROLS]
    assert len(every.rows) == 1 + 3 * len(METHODS) + len(CONTROLS)


@pytest.mark.slow
def test_the_claim_holds(tmp_path):
    claim = run_claim(tmp_path)
    assert [row.metric for row in claim.rows if row.verdict == "differs"] == []
