"""Rank correlations, selection figures and their bootstrap, against SciPy and by enumeration."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from effkit.errors import UserError
from ws_nas.ops.bootstrap import tau_interval, tau_resamples
from ws_nas.ops.ranks import (
    best_of_top_k,
    kendall_tau,
    precision_at_k,
    regret_at_k,
    spearman_rho,
    tie_fraction,
    top_mask,
    weighted_tau,
)


def _scores(n, values, seed=0):
    generator = np.random.default_rng(seed)
    q = generator.integers(0, values, n).astype(float)
    return q, q + generator.normal(0, values / 3, n).round()


def test_tau_counts_pairs_and_leaves_out_ties():
    # Six pairs: (1,2) tied in q; of the others four agree and one does not.
    q, s = [1.0, 1.0, 2.0, 3.0], [1.0, 2.0, 4.0, 3.0]
    assert kendall_tau(q, s) == pytest.approx((4 - 1) / math.sqrt(5 * 6))
    assert tie_fraction(q) == pytest.approx(1 / 6)
    assert kendall_tau(q, [-x for x in s]) == -kendall_tau(q, s)
    assert spearman_rho([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    a, b = _scores(60, 20)
    assert weighted_tau(a, b) == pytest.approx(stats.weightedtau(a, b).statistic)


@pytest.mark.parametrize("measure", [kendall_tau, spearman_rho, weighted_tau])
def test_equal_scores_rank_nothing(measure):
    with pytest.warns(UserWarning, match="all scores are equal"):
        assert math.isnan(measure([3.0] * 12, list(range(12))))


@pytest.mark.parametrize("bad", [[1.0, float("nan"), 2.0], [1.0, float("inf"), 2.0], [[1.0, 2.0, 3.0]], [1.0, 2.0]])
def test_what_is_no_score_is_refused(bad):
    with pytest.raises(UserError, match="q"):
        kendall_tau(bad, [1.0, 2.0, 3.0])


def test_selection_is_the_mean_over_ways_to_break_ties():
    q, s = [5.0, 3.0, 3.0, 3.0, 1.0], [1.0, 9.0, 4.0, 7.0, 8.0]
    for k in range(1, 6):
        # All orders that sort q descending, each as likely.
        orders = [o for o in itertools.permutations(range(5)) if all(q[a] >= q[b] for a, b in itertools.pairwise(o))]
        best = np.mean([max(s[i] for i in o[:k]) for o in orders])
        top = set(sorted(range(5), key=lambda i: -s[i])[:k])
        precision = np.mean([len(top & set(o[:k])) / k for o in orders])
        assert best_of_top_k(q, s, k) == pytest.approx(best)
        assert regret_at_k(q, s, k) == pytest.approx(9.0 - best)
        assert precision_at_k(q, s, k) == pytest.approx(precision)
    for k in (0, 6, True, 1.5):
        with pytest.raises(UserError, match="k="):
            precision_at_k(q, s, k)


def test_top_takes_all_that_tie_at_the_cut():
    s = [1.0, 2.0, 2.0, 3.0]
    assert top_mask(s, 0.5).tolist() == [False, True, True, True]
    assert top_mask(s, 0.25).tolist() == [False, False, False, True]
    assert top_mask(np.arange(100.0), 0.07).sum() == 7  # 0.07 * 100 is 7.000000000000001


@pytest.mark.parametrize("n", [30, 2060])
def test_resampled_taus_are_those_of_scipy(n):
    q, s = _scores(n, 12)
    found = tau_resamples(q, s, 5, seed=3)
    draws = np.random.default_rng(3).integers(0, n, (5, n))
    assert found == pytest.approx([stats.kendalltau(q[d], s[d]).statistic for d in draws], abs=1e-12)


def test_interval_holds_tau_and_narrows():
    q, s = _scores(400, 50)
    small, large = tau_interval(q[:40], s[:40]), tau_interval(q, s)
    assert large[0] < kendall_tau(q, s) < large[1]
    assert large[1] - large[0] < 0.5 * (small[1] - small[0])
    assert tau_interval(q, s, seed=1) != large == tau_interval(q, s)
    assert all(map(math.isnan, tau_interval([1.0] * 20, list(range(20)))))
    for bad in ({"resamples": 99}, {"resamples": True}, {"level": 1.0}):
        with pytest.raises(UserError, match=next(iter(bad))):
            tau_interval(q, s, **bad)
