"""The five meters on known answers, and a report that refuses a tau without its company."""

import json
import math

import numpy as np
import pytest
import torch

from effkit.errors import UserError
from ws_nas.meters import (
    GapReport,
    deployment_gap,
    discretization_gap,
    exact_hypergradient,
    hypergradient_error,
    noise_ceiling,
    ranking_gap,
    structural_baselines,
    value_gap,
)
from ws_nas.ops.ranks import kendall_tau
from ws_nas.spaces.registry import get_space

NA = "not applicable in this test"


@pytest.fixture
def seeds():
    generator = np.random.default_rng(0)
    true = generator.normal(80, 5, 60)
    return true + generator.normal(0, 1, (3, 60))


def test_value_gap():
    found = value_gap([50.0, 60.0, 70.0], [55.0, 60.0, 90.0])
    assert (found.mean, found.least, found.most, found.quantiles["0.5"]) == (25 / 3, 0.0, 20.0, 5.0)
    assert found.std == pytest.approx(np.std([5, 0, 20], ddof=1))
    with pytest.raises(UserError, match="q holds fractions and s percent"):
        value_gap([0.5, 0.6], [50.0, 61.0])
    with pytest.raises(UserError, match="none is below 0"):
        value_gap([-0.5, -0.6], [0.5, 0.7])
    assert value_gap([0.0, 0.0], [97.0, 99.0]).mean == 98.0  # a supernet that knows nothing
    assert value_gap([0.1, 0.2], [75.0, 76.0], alike=True).mean == pytest.approx(75.35)


def test_noise_ceiling_is_the_mean_over_pairs_of_seeds(seeds):
    pairs = [kendall_tau(seeds[i], seeds[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert noise_ceiling(seeds) == pytest.approx(sum(pairs) / 3)
    for bad in (seeds[0], seeds[:1]):
        with pytest.raises(UserError, match="two seeds"):
            noise_ceiling(bad)
    with pytest.raises(UserError, match="seeds 0 and 1 hold the same figures"):
        noise_ceiling(seeds[[0, 0]])


def test_ranking_gap(seeds):
    q = seeds.mean(0) + np.random.default_rng(1).normal(0, 4, 60)
    found = ranking_gap(q, seeds, baselines={"params": 0.1}, ks=(1, 5, 100))
    assert found.tau == kendall_tau(q, seeds.mean(0)) == 1 - found.gap
    assert found.interval[0] < found.tau < found.interval[1]
    assert found.ceiling == noise_ceiling(seeds)
    assert found.single_seed_tau == pytest.approx(np.mean([kendall_tau(q, row) for row in seeds]))
    assert found.of_ceiling == pytest.approx(found.single_seed_tau / found.ceiling)
    half = seeds.mean(0) >= np.median(seeds.mean(0))
    assert found.top["50 %"] == kendall_tau(q[half], seeds.mean(0)[half])
    assert found.top["1 %"] is None  # one architecture ranks nothing
    assert list(found.precision) == list(found.regret) == ["1", "5"]
    assert found.beats == {"params": True}
    perfect = ranking_gap(seeds[0], seeds[0])
    assert (perfect.tau, perfect.gap, perfect.regret["1"]) == (1, 0, 0)


def test_few_architectures():
    with pytest.raises(UserError, match=r"n=9 architectures are too few.*0\.27"):
        ranking_gap(range(9), range(9))
    assert "scatters by 0.21" in ranking_gap(range(13), range(13)).notes[0]
    assert ranking_gap(range(50), range(50)).notes == ()


def test_all_equal_scores_are_nan_and_never_one():
    with pytest.warns(UserWarning, match="all scores are equal"):
        found = ranking_gap([0.1] * 60, range(60), ceiling=0.9, baselines={"params": 0.5})
    assert math.isnan(found.tau)
    assert math.isnan(found.interval[0])
    assert found.ties == 1
    report = GapReport("s", "q", "t", found, NA, NA, NA, NA)
    assert "nothing is ranked" in report.verdict()
    assert json.loads(json.dumps(report.to_dict()["n"])) == 60


def test_structural_baselines_count_parameters_and_macs():
    space = get_space("digits_chain")
    genotypes = space.sample_many(30, 0)
    costs = [space.cost(g) for g in genotypes]
    found = structural_baselines(space, genotypes, [c.macs for c in costs])
    assert found["macs"] == pytest.approx(1)
    assert found["params"] == pytest.approx(kendall_tau([c.params for c in costs], [c.macs for c in costs]))


def test_deployment_gap():
    small = np.arange(20.0)
    assert deployment_gap(small, small**2).gap == pytest.approx(0)
    assert deployment_gap(small, -small).gap == pytest.approx(2)
    with pytest.raises(UserError, match="too few"):
        deployment_gap(small[:9], small[:9])


def test_discretization_gap():
    target = torch.tensor([0.7, 0.3], dtype=torch.float64)

    def loss(weights):
        return float(sum(((w - target) ** 2).sum() for w in weights))

    pi = [torch.tensor([0.6, 0.4], dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64)]
    found = discretization_gap(loss, pi)
    assert (found.soft, found.hard) == pytest.approx((2 * 0.01 + 2 * 0.04, 4 * 0.09))
    assert found.gap == pytest.approx(0.36 - 0.10)
    entropies = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4)), math.log(2)
    assert found.entropy == pytest.approx(sum(entropies) / 2)
    assert found.relative_entropy == pytest.approx(sum(entropies) / (2 * math.log(2)))
    assert found.close == 0.5
    # Nothing is lost by a choice that was made already; of equal probabilities the first is taken.
    made = [torch.tensor([0.0, 1.0])]
    assert discretization_gap(loss, made).gap == 0
    assert discretization_gap(loss, made).entropy == 0
    seen = []
    discretization_gap(lambda weights: seen.append(weights) or 0.0, [torch.tensor([0.25] * 4)])
    assert seen[1][0].tolist() == [1, 0, 0, 0]
    for bad in ([], [torch.tensor([0.5, 0.6])], [torch.tensor([1.5, -0.5])]):
        with pytest.raises(UserError, match="probabilities"):
            discretization_gap(loss, bad)
    with pytest.raises(UserError, match="is nan"):
        discretization_gap(lambda weights: math.nan, pi)


def test_hypergradient_known_answer():
    """The training loss is 0.5 w'Aw - alpha'w, the validation loss 0.5 |w - c|^2, at w* - c = (1, 2)."""
    a = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
    alpha = torch.tensor([2.0, 4.0], dtype=torch.float64)
    w = torch.linalg.solve(a, alpha)
    c = w - torch.tensor([1.0, 2.0], dtype=torch.float64)
    exact = exact_hypergradient(
        lambda w, alpha: 0.5 * w @ a @ w - alpha @ w, lambda w, alpha: 0.5 * ((w - c) ** 2).sum(), w, alpha
    )
    assert exact.tolist() == pytest.approx([1.0, 0.5])
    one_step = hypergradient_error(torch.tensor([1.0, 2.0]), exact)
    assert one_step.cosine == pytest.approx(0.8)
    assert one_step.norm_ratio == pytest.approx(2)
    amended = hypergradient_error(a @ torch.tensor([1.0, 2.0], dtype=torch.float64), exact)
    assert amended.cosine == pytest.approx(0.5547, abs=1e-4)
    for terms, cosine in ((5, 0.98461), (10, 0.99890)):
        v = total = torch.tensor([1.0, 2.0], dtype=torch.float64)
        for _ in range(terms - 1):
            v = v - 0.2 * a @ v
            total = total + v
        assert hypergradient_error(0.2 * total, exact).cosine == pytest.approx(cosine, abs=1e-5)
    assert hypergradient_error(exact, exact).relative_error == 0


def test_hypergradient_is_that_of_the_solved_inner_problem():
    """Against central differences of the validation loss at the minimum, of a loss that is not quadratic in alpha."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    y, z = (torch.randn(20, generator=generator, dtype=torch.float64) for _ in range(2))

    def train(w, alpha):
        return ((x @ w - y) ** 2).mean() + (alpha.exp() * w**2).sum()

    def val(w, alpha):
        return ((x @ w - z) ** 2).mean() + (alpha**2).sum()

    def solved(alpha):
        return torch.linalg.solve(x.T @ x / 20 + torch.diag(alpha.exp()), x.T @ y / 20)

    alpha = torch.tensor([0.3, -0.5, 0.1], dtype=torch.float64)
    exact = exact_hypergradient(train, val, solved(alpha), alpha)
    for i, step in enumerate(1e-5 * torch.eye(3, dtype=torch.float64)):
        up, down = alpha + step, alpha - step
        assert float(exact[i]) == pytest.approx(float(val(solved(up), up) - val(solved(down), down)) / 2e-5, abs=1e-8)


def test_hypergradient_refusals():
    w, alpha = torch.ones(2), torch.ones(2)
    with pytest.raises(UserError, match="singular"):
        exact_hypergradient(lambda w, a: (w.sum() - a.sum()) ** 2, lambda w, a: (w**2).sum(), w, alpha)
    with pytest.raises(UserError, match="up to 5000"):
        exact_hypergradient(lambda w, a: w.sum(), lambda w, a: w.sum(), torch.ones(5001), alpha)
    with pytest.raises(UserError, match="zero"):
        hypergradient_error(alpha, torch.zeros(2))
    with pytest.raises(UserError, match="shape"):
        hypergradient_error(torch.ones(3), alpha)


def _report(seeds, **more):
    ranking = ranking_gap(seeds.mean(0), seeds, baselines={"params": 0.2, "macs": 0.1})
    return GapReport("digits_chain", "q", "t, 3 seeds", ranking, value_gap(seeds[0], seeds[1]), NA, NA, NA, **more)


def test_a_tau_alone_is_refused(seeds):
    q = seeds.mean(0)
    for ranking, word in (
        (ranking_gap(q, q, baselines={"params": 0.2}), "ceiling"),
        (ranking_gap(q, q, ceiling=0.9), "baselines"),
    ):
        with pytest.raises(UserError, match=f"without .*{word}.* is no evidence"):
            GapReport("s", "q", "t", ranking, NA, NA, NA, NA)
    with pytest.raises(UserError, match="deployment=''"):
        GapReport("s", "q", "t", _report(seeds).ranking, NA, NA, "", NA)


def test_report_as_json_markdown_and_page(seeds, tmp_path):
    report = _report(seeds, notes=("a <note>",))
    files = report.write(tmp_path)
    found = json.loads(files[0].read_text())
    assert {"tau", "ci_low", "ci_high", "ceiling", "baselines"} <= set(found)
    assert found["tau"] == report.tau
    assert found["baselines"] == {"params": 0.2, "macs": 0.1}
    assert found["meters"]["hypergradient"] == {"not_applicable": NA}
    assert found["meters"]["value"]["mean"] == pytest.approx((seeds[1] - seeds[0]).mean())
    markdown, page = files[1].read_text(), files[2].read_text()
    for text in (markdown, page):
        assert all(f"M{i}" in text for i in range(1, 6))
        assert NA in text
        assert f"{report.ranking.ceiling:.4g}" in text
    assert "a &lt;note&gt;" in page
    assert "<script" not in page
    assert "http" not in page.split("</style>")[1]
