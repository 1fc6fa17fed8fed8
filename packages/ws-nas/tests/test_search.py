"""Searches: nothing twice, nothing beyond a limit, known optima found, mistakes refused."""

import itertools
import math

import pytest
import torch

from effkit.errors import UserError
from ws_nas.meters.tables.latency import LatencyTable
from ws_nas.search import ConstrainedEvolution, Limit, RandomSearch, RegularizedEvolution
from ws_nas.search.fronts import crowding, fronts
from ws_nas.spaces.registry import get_space

MACRO, DIGITS = get_space("nas_bench_macro"), get_space("digits_chain")
EVOLUTIONS = [RegularizedEvolution(), ConstrainedEvolution(20, 10)]
SEARCHES = [RandomSearch(), *EVOLUTIONS, ConstrainedEvolution(20, trade="macs")]


def _separable(genotypes):
    """One best option a layer, of unlike worth; the optimum is 21021021."""
    best = (2, 1, 0, 2, 1, 0, 2, 1)
    return [-float(sum((i + 1) * abs(a - b) for i, (a, b) in enumerate(zip(g, best, strict=True)))) for g in genotypes]


def _count(genotypes):
    return [float(sum(g)) for g in genotypes]


@pytest.mark.parametrize("search", SEARCHES, ids=lambda s: f"{type(s).__name__}-{getattr(s, 'trade', None)}")
def test_nothing_twice_nothing_beyond_the_limit(search):
    most = 60e6
    asked = []

    def score(genotypes):
        asked.extend(genotypes)
        return _separable(genotypes)

    found = search.run(MACRO, score, 120, {"macs": most, "params": 2.2e6}, seed=1)
    assert [t.genotype for t in found.history] == asked
    assert len(set(asked)) == len(asked) == 120
    assert all(MACRO.cost(g).macs <= most and MACRO.cost(g).params <= 2.2e6 for g in asked)
    assert found.best.score == max(_separable(asked))
    assert found.message == ""
    again = search.run(MACRO, _separable, 120, {"macs": most, "params": 2.2e6}, seed=1)
    assert again == found
    assert search.run(MACRO, _separable, 120, {"macs": most, "params": 2.2e6}, seed=2).history != found.history


@pytest.mark.parametrize("search", EVOLUTIONS, ids=["regularized", "constrained"])
def test_evolution_finds_the_optimum_of_a_separable_table(search):
    found = [search.run(MACRO, _separable, 200, seed=seed).best.score for seed in range(10)]
    assert sum(score == 0 for score in found) >= 8
    random = [RandomSearch().run(MACRO, _separable, 200, seed=seed).best.score for seed in range(5)]
    assert max(random) < 0


@pytest.mark.parametrize("search", SEARCHES, ids=lambda s: f"{type(s).__name__}-{getattr(s, 'trade', None)}")
def test_a_small_space_is_exhausted_and_says_so(search):
    found = search.run(DIGITS, _count, 500, {"macs": DIGITS.cost((1, 1, 1, 1)).macs}, seed=0)
    feasible = [g for g in DIGITS if DIGITS.cost(g).macs <= DIGITS.cost((1, 1, 1, 1)).macs]
    assert sorted(t.genotype for t in found.history) == feasible
    assert f"all {len(feasible)} genotypes" in found.message


@pytest.mark.parametrize("search", SEARCHES[:3], ids=["random", "regularized", "constrained"])
@pytest.mark.parametrize("space", [MACRO, get_space("fairnas_chain")], ids=["counted", "sampled"])
def test_an_empty_feasible_set_is_refused(search, space):
    with pytest.raises(UserError, match=rf"space={space.name}: none of .* within limit\.macs <= 1000 \(least \d"):
        search.run(space, _count, 10, {"macs": 1000})


def test_large_spaces_are_sampled_within_their_limit():
    space = get_space("fairnas_chain")
    costs = sorted(space.cost(g).macs for g in space.sample_many(100, 0))
    for search in (RegularizedEvolution(10, 5), ConstrainedEvolution(20, 10)):
        found = search.run(space, _count, 60, {"macs": costs[30]}, seed=0)
        assert len({t.genotype for t in found.history}) == 60
        assert max(t.costs["macs"] for t in found.history) <= costs[30]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_none_names_the_genotype(bad):
    with pytest.raises(UserError, match=rf"score of [012]{{4}} is {bad}"):
        RandomSearch().run(DIGITS, lambda genotypes: [bad] * len(genotypes), 5)


def test_refusals():
    with pytest.raises(UserError, match="1 scores for"):
        RandomSearch().run(DIGITS, lambda genotypes: [1.0], 5)
    for budget in (0, True, 2.5):
        with pytest.raises(UserError, match="budget="):
            RandomSearch().run(DIGITS, _count, budget)
    with pytest.raises(UserError, match="limit='flops'"):
        RandomSearch().run(DIGITS, _count, 5, {"flops": 1e6})
    with pytest.raises(UserError, match=r"limit\.macs=-1"):
        RandomSearch().run(DIGITS, _count, 5, {"macs": -1})
    with pytest.raises(UserError, match="needs a latency table"):
        RandomSearch().run(DIGITS, _count, 5, {"latency_ms": 5})
    with pytest.raises(UserError, match="tournament=30"):
        RegularizedEvolution(20, 30)
    with pytest.raises(UserError, match="parents=0"):
        ConstrainedEvolution(parents=0)


def test_latency_limits():
    table = LatencyTable(DIGITS.space_id, "cpu", 1, [[0.0, 1.0, 2.0]] * 4)
    found = ConstrainedEvolution(10, 5, latency=table).run(DIGITS, _count, 60, {"latency_ms": 4})
    assert max(t.costs["latency_ms"] for t in found.history) == 4 == found.best.score
    measured = {g: table.latency(g) for g in DIGITS if g[0] != 1}  # of the others nothing is known
    found = ConstrainedEvolution(10, 5, latency=measured).run(DIGITS, _count, 60, {"latency_ms": 4})
    assert all(t.genotype[0] != 1 for t in found.history)
    own = Limit("layers", 2, lambda g: sum(gene > 0 for gene in g))
    assert RandomSearch().run(DIGITS, _count, 81, [own]).best.score == 4


def test_fronts_by_definition():
    generator = torch.Generator().manual_seed(0)
    goals = [tuple(map(float, p)) for p in torch.randint(6, (40, 2), generator=generator).tolist()]

    def beats(a, b):
        return a[0] >= b[0] and a[1] >= b[1] and a != b

    left, expected = set(range(40)), []
    while left:
        front = [i for i in sorted(left) if not any(beats(goals[j], goals[i]) for j in left)]
        expected.append(front)
        left -= set(front)
    assert fronts(goals) == expected
    assert crowding([(0.0, 4.0), (1.0, 3.0), (4.0, 0.0)]) == [math.inf, 2.0, math.inf]


def test_two_goals_find_the_front():
    """Score and MACs of four independent layers: the true front is known by counting all 81."""
    value = {0: 0.0, 1: 1.0, 2: 1.2}

    def score(genotypes):
        return [sum(value[gene] * (i + 1) for i, gene in enumerate(g)) for g in genotypes]

    every = [(s, -DIGITS.cost(g).macs, g) for s, g in zip(score(list(DIGITS)), DIGITS, strict=True)]
    true = {every[i][2] for i in fronts([e[:2] for e in every])[0]}
    found = ConstrainedEvolution(20, trade="macs").run(DIGITS, score, 60, seed=0)
    own = [(t.score, t.costs["macs"]) for t in found.front]
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(own))
    assert len(true & {t.genotype for t in found.front}) >= 0.7 * len(true)
