"""Statistics of an analysis: naive twins, known answers, intervals, calibration."""

from __future__ import annotations

import math

import pytest
import torch

from kd_autoaug.analysis import statistics as stats
from kd_autoaug.analysis.bootstrap import bootstrap
from kd_autoaug.analysis.calibration import cross_fitted_temperature, fit_temperature, reliability

N, R, C = 13, 3, 4


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(5)
    clean = torch.randn(N, C, generator=rng) * 2
    labels = torch.where(torch.arange(N) % 3 > 0, clean.argmax(-1), torch.randint(C, (N,), generator=rng))
    return clean, torch.randn(N, R, C, generator=rng) * 2, labels


def softmax(row: torch.Tensor) -> list[float]:
    terms = [math.exp(float(v)) for v in row]
    return [t / sum(terms) for t in terms]


def test_every_statistic_equals_its_naive_twin(case) -> None:
    clean, views, labels = case
    over, under = stats.outliers(clean, views, labels)
    found = {
        "drop": stats.confidence_drop(clean, views, labels),
        "kl": stats.view_kl(clean, views),
        "entropy": stats.entropy(views),
        "accuracy": stats.accuracy(views, labels),
        "information": stats.label_information(views, labels, 1.7),
        "over": over,
        "under": under,
    }
    frequency = [int((labels == c).sum()) / N for c in range(C)]
    for i in range(N):
        y, before = int(labels[i]), softmax(clean[i])
        want = dict.fromkeys(found, 0.0)
        want["under"] = float(before.index(max(before)) == y)
        for r in range(R):
            after = softmax(views[i, r])
            wrong = after.index(max(after)) != y
            want["drop"] += (before[y] - after[y]) / R
            want["kl"] += sum(p * (math.log(p) - math.log(q)) for p, q in zip(before, after, strict=True)) / R
            want["entropy"] -= sum(q * math.log(q) for q in after) / R
            want["accuracy"] += (not wrong) / R
            want["over"] += want["under"] * wrong / R
            warm = softmax(views[i, r].double() / 1.7)
            want["information"] += (math.log2(warm[y]) - math.log2(frequency[y])) / R
        for name, value in want.items():
            assert float(found[name][i]) == pytest.approx(value, rel=1e-9, abs=1e-12), (name, i)
    mass = stats.top_mass(views)
    want_mass = [
        sum(sum(sorted(softmax(views[0, r]), reverse=True)[:k]) for r in range(R)) / R for k in range(1, C + 1)
    ]
    assert mass[0].tolist() == pytest.approx(want_mass)


def test_the_mean_of_label_information_is_its_definition(case) -> None:
    _, views, labels = case
    logs = torch.log_softmax(views.double(), -1)
    expected = sum(float(logs[i, r, labels[i]]) / math.log(2) for i in range(N) for r in range(R)) / (N * R)
    information = float(stats.label_information(views, labels).mean())
    assert information == pytest.approx(stats.label_entropy(labels, C) + expected)


def test_unchanged_answers_have_exactly_no_effect(case) -> None:
    clean, _, labels = case
    views = clean[:, None].repeat(1, R, 1)
    assert stats.confidence_drop(clean, views, labels).tolist() == [0.0] * N
    assert stats.view_kl(clean, views).tolist() == [0.0] * N
    over, under = stats.outliers(clean, views, labels)
    assert float(over.sum()) == 0.0
    assert float(under.sum()) > 0


def test_label_information_of_those_who_know_all_and_nothing() -> None:
    labels = torch.arange(40) % 4
    sure = torch.full((40, 1, 4), -50.0)
    sure[torch.arange(40), 0, labels] = 50.0
    assert float(stats.label_information(sure, labels).mean()) == pytest.approx(2.0)  # log2 of 4 equal classes
    blind = torch.zeros(40, 1, 4)
    assert float(stats.label_information(blind, labels).mean()) == pytest.approx(0.0, abs=1e-12)
    biased = torch.tensor([3.0, 0, 0, 0]).expand(40, 2, 4)  # looks at nothing and is wrong about the frequencies
    assert float(stats.label_information(biased, labels).mean()) < -0.5  # reported as it is, not clipped


def test_negative_confidence_drop_is_kept() -> None:
    clean, views = torch.tensor([[0.0, 1.0]]), torch.tensor([[[2.0, 0.0]]])
    assert float(stats.confidence_drop(clean, views, torch.tensor([0]))[0]) < -0.5


def test_stddev_of_the_mean_answer_equals_its_naive_twin(case) -> None:
    _, views, _ = case
    rows = [softmax(row) for row in views.flatten(0, 1)]
    order = torch.randperm(N * R, generator=torch.Generator().manual_seed(3)).tolist()
    size = 2 * 4
    groups = [[rows[i] for i in order[b : b + size]] for b in range(0, N * R - size + 1, size)]
    means = [[sum(row[c] for row in group) / size for c in range(C)] for group in groups]
    spread = 0.0
    for c in range(C):
        column = [m[c] for m in means]
        centre = sum(column) / len(column)
        spread += math.sqrt(sum((v - centre) ** 2 for v in column) / (len(column) - 1)) / C
    assert stats.teacher_stddev(views, batch_size=4, batches=2, seed=3) == pytest.approx(spread)
    assert stats.teacher_stddev(views, batch_size=4, batches=5) is None  # 39 views are one group of 20
    assert stats.teacher_stddev(torch.ones(8, 1, 3), batch_size=2, batches=2) == 0.0


def test_smallest_k_is_the_first_that_holds_the_mass() -> None:
    mass = torch.tensor([0.5, 0.85, 0.95, 1.0], dtype=torch.float64)
    assert [stats.smallest_k(mass, m) for m in (0.4, 0.5, 0.9, 0.95, 1.0)] == [1, 1, 3, 3, 4]
    assert stats.smallest_k(torch.tensor([0.5, 0.9999999999999], dtype=torch.float64), 1.0) == 2
    for mass_asked in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"mass=.*\(0, 1\]"):
            stats.smallest_k(mass, mass_asked)


def test_bootstrap_of_ratios_and_its_reproducibility() -> None:
    rng = torch.Generator().manual_seed(0)
    under = (torch.rand(200, 1, generator=rng) < 0.7).double()
    over = under * (torch.rand(200, 1, generator=rng) < 0.2).double()
    state = torch.get_rng_state()
    (first,) = bootstrap(over, under, seed=1)
    assert first == bootstrap(over, under, seed=1)[0]
    assert first != bootstrap(over, under, seed=2)[0]
    assert torch.equal(state, torch.get_rng_state())
    rate = float(over.sum() / under.sum())
    assert first.value == rate
    expected = 1.96 * math.sqrt(rate * (1 - rate) / float(under.sum()))
    assert first.half_width == pytest.approx(expected, rel=0.15)
    assert first.low < rate < first.high


def test_bootstrap_covers_the_truth_about_as_often_as_it_claims() -> None:
    rng = torch.Generator().manual_seed(7)
    samples = torch.randn(60, 400, generator=rng, dtype=torch.float64) + 0.3
    inside = sum(e.low <= 0.3 <= e.high for e in bootstrap(samples, resamples=400))
    assert 0.90 <= inside / 400 <= 0.98


def test_bootstrap_edges() -> None:
    (constant,) = bootstrap(torch.full((5, 1), 0.25))
    assert constant == (0.25, 0.25, 0.25)
    (nothing,) = bootstrap(torch.zeros(5, 1), torch.zeros(5, 1))
    assert all(math.isnan(v) for v in nothing)
    one, two = bootstrap(torch.tensor([[1.0, 2.0], [3.0, 6.0], [0.0, 0.0]]))
    assert (two.low, two.high) == (2 * one.low, 2 * one.high)  # the same pictures for both columns
    with pytest.raises(ValueError, match="resamples=0"):
        bootstrap(torch.ones(3, 1), resamples=0)
    with pytest.raises(ValueError, match=r"level=1.0"):
        bootstrap(torch.ones(3, 1), level=1.0)
    with pytest.raises(ValueError, match=r"\(n, S\)"):
        bootstrap(torch.ones(3))


def test_temperature_is_that_of_least_cross_entropy() -> None:
    rng = torch.Generator().manual_seed(0)
    truth = torch.randn(500, 5, generator=rng) * 1.5
    labels = torch.multinomial(torch.softmax(truth, -1), 1, generator=rng).squeeze(-1)
    assert fit_temperature(truth * 3, labels) == pytest.approx(3, rel=0.15)

    def loss(t: float) -> float:
        return float(torch.nn.functional.cross_entropy(truth.double() * 3 / t, labels))

    best = fit_temperature(truth * 3, labels)
    assert loss(best) <= min(loss(best * 0.98), loss(best * 1.02))
    assert fit_temperature(-truth * 3, labels) == 100.0  # worse than chance: as flat as allowed
    perfect = torch.eye(5).double()[labels]
    assert fit_temperature(perfect, labels) == pytest.approx(0.05)


def test_a_temperature_is_not_fitted_on_the_picture_it_serves() -> None:
    rng = torch.Generator().manual_seed(1)
    labels = torch.arange(40) % 3
    views = torch.randn(40, 2, 3, generator=rng) + 1.5 * torch.eye(3)[labels][:, None]
    before = cross_fitted_temperature(views, labels)
    assert len(set(before.tolist())) == 2
    changed = views.clone()
    changed[0] *= -4
    after = cross_fitted_temperature(changed, labels)
    own = before == before[0]
    assert torch.equal(before[own], after[own])
    assert not torch.equal(before[~own], after[~own])
    assert cross_fitted_temperature(views[:3], labels[:3]).tolist() == [1.0] * 3
    # Folds are even in every class.
    for c in range(3):
        assert abs(int((own & (labels == c)).sum()) - int((~own & (labels == c)).sum())) <= 1


def test_reliability_counts_by_hand() -> None:
    p = torch.tensor([[0.95, 0.05], [0.95, 0.05], [0.62, 0.38], [0.27, 0.73]]).log()[:, None]
    found = reliability(p, torch.tensor([0, 1, 0, 0]), bins=10)
    assert (sum(found.count), found.count[9], found.count[6], found.count[7]) == (4, 2, 1, 1)
    assert found.accuracy[9] == 0.5
    assert found.confidence[9] == pytest.approx(0.95)
    assert found.error == pytest.approx((2 * 0.45 + 0.38 + 0.73) / 4, abs=1e-6)
    with pytest.raises(ValueError, match="bins=0"):
        reliability(p, torch.tensor([0, 1, 0, 0]), bins=0)


def test_logits_that_do_not_fit_are_refused(case) -> None:
    clean, views, labels = case
    stats.check_logits(clean, views, labels)
    for bad in ((clean[:5], views, labels), (clean, views[..., :3], labels), (clean, views, labels[:4])):
        with pytest.raises(ValueError, match=r"do not fit"):
            stats.check_logits(*bad)
    with pytest.raises(ValueError, match=r"labels must be whole numbers in 0\.\.3"):
        stats.check_logits(clean, views, labels + 3)
    views[2, 1, 0] = math.inf
    with pytest.raises(ValueError, match="not finite"):
        stats.check_logits(clean, views, labels)
