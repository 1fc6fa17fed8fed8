"""What families draw, how fair it is, what a step trains, and what is kept: on a chain of linear layers."""

from __future__ import annotations

import copy
from collections import Counter
from itertools import product

import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from effkit.errors import UserError
from ws_nas.families.asng import AdaptiveCategorical, utilities
from ws_nas.families.base import Batch, NotFinite, generator_of
from ws_nas.families.controller import Controller
from ws_nas.families.progress import Progress
from ws_nas.families.registry import make_family
from ws_nas.spaces.space import Cost, Layout, Space
from ws_nas.supernets.supernet import Supernet

SAMPLING = ["spos", "fairnas", "enas", "asng", "few_shot"]


class Lines(Supernet):
    """Layers of linear maps, one of three each: a chain without batch normalisation, exact in float64."""

    def __init__(self, choices, space_id):
        super().__init__(choices, space_id)
        generator = torch.Generator().manual_seed(5)
        self.layers = nn.ParameterList(
            nn.Parameter(0.5 * torch.randn(m, 8, 8, generator=generator, dtype=torch.float64)) for m in self.choices
        )
        self.head = nn.Parameter(torch.randn(8, 4, generator=generator, dtype=torch.float64))

    def run(self, x, genotype):
        x = x.flatten(1)
        for layer, gene in zip(self.layers, genotype, strict=True):
            x = torch.tanh(x @ layer[gene])
        return x @ self.head


class Alone(nn.Module):
    def __init__(self, lines, genotype):
        super().__init__()
        self.lines, self.genotype = lines, genotype

    def forward(self, x):
        return self.lines(x, self.genotype)


class LineSpace(Space):
    """Three layers of three; ``forbidden`` is not valid."""

    def __init__(self, choices=(3, 3, 3), forbidden=(0, 0, 0)):
        super().__init__("lines", choices, Layout(1, 2, 4), {"forbidden": forbidden})
        self.forbidden = forbidden

    def is_valid(self, genotype):
        return self._fits(genotype) and genotype != self.forbidden

    def size(self):
        return super().size() - 1

    def __iter__(self):
        return (g for g in product(*map(range, self.choices)) if self.is_valid(g))

    def format(self, genotype):
        return "".join(map(str, genotype))

    def read(self, text):
        return tuple(map(int, text))

    def cost(self, genotype):
        return Cost(sum(genotype) + 1, sum(genotype) + 1)

    def build(self, genotype):
        return Alone(Lines(self.choices, self.space_id), genotype)

    def supernet(self, **options):
        return Lines(self.choices, self.space_id)


def family_of(name, space=None, **options):
    space = space or LineSpace()
    return make_family(name, space, space.supernet(), **options)


def batch(count=6, seed=0, value=None):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 8, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (count,), generator=generator)
    if value is not None:
        images.fill_(value)
    return Batch(images, labels, images.flip(0), labels.flip(0))


def endless(seed=0):
    while True:
        one = batch(seed=seed)
        yield one.images, one.labels
        seed += 1


def train(family, steps=6, start=0, epochs=2, per_epoch=3):
    optimizer = torch.optim.SGD(family.network.parameters(), lr=0.1, momentum=0.9)
    family.weight_optimizer = optimizer
    losses = []
    for step in range(start, steps):
        if step % per_epoch == 0:
            family.begin_epoch(Progress(step // per_epoch, epochs, per_epoch))
        optimizer.zero_grad()
        losses.append(float(family.training_step(batch(seed=step), step)["loss"]))
        optimizer.step()
        if (step + 1) % per_epoch == 0:
            family.end_epoch(endless())
    return losses


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_spos_is_uniform_over_valid_genotypes():
    family = family_of("spos")
    counts = Counter(family.paths(step)[0] for step in range(5200))
    assert len(counts) == 26
    assert (0, 0, 0) not in counts
    assert chisquare(list(counts.values())).pvalue > 0.01


def test_fairnas_trains_every_choice_of_every_layer_once_a_step_over_1000_steps():
    space = LineSpace((5, 5, 5, 5, 5, 5), (0,) * 6)
    family = family_of("fairnas", space)
    first = Counter()
    for step in range(1000):
        paths = family.paths(step)
        for layer in range(6):
            assert sorted(path[layer] for path in paths) == list(range(5))
        assert all(map(space.is_valid, paths))
        first.update([paths[0][0]])
    assert chisquare(list(first.values())).pvalue > 0.01


def test_fairnas_draws_anew_where_a_step_would_hold_an_invalid_genotype():
    family = family_of("fairnas", LineSpace((2, 2), (0, 0)))
    # Of both pairs of permutations one holds 00; only {01, 10} is left.
    assert {frozenset(family.paths(step)) for step in range(50)} == {frozenset({(0, 1), (1, 0)})}


def test_fairnas_needs_equally_many_choices():
    with pytest.raises(UserError, match=r"family=fairnas needs equally many choices .* have 2, 3: use family=spos"):
        family_of("fairnas", LineSpace((3, 2, 3)))


def test_fairnas_says_where_no_fair_step_exists():
    class Never(LineSpace):
        def is_valid(self, genotype):
            return self._fits(genotype) and genotype[0] != 0

    with pytest.raises(UserError, match=r"found no 3 valid genotypes of space=lines in 1000 draws"):
        family_of("fairnas", Never())


@pytest.mark.parametrize("name", SAMPLING)
def test_draws_depend_on_seed_and_step_only(name):
    one, other = family_of(name), family_of(name)
    assert [one.paths(step) for step in (0, 3, 7)] == [other.paths(step) for step in (0, 3, 7)]
    assert one.paths(7) == one.paths(7)
    assert [one.paths(s) for s in range(20)] != [family_of(name, seed=1).paths(s) for s in range(20)]


# --- what a step trains -----------------------------------------------------------------------------------------------


def test_only_the_path_gets_gradients():
    family = family_of("spos")
    family.training_step(batch(), 0)
    (path,) = family.paths(0)
    for layer, gene in zip(family.supernet.layers, path, strict=True):
        moved = layer.grad.abs().sum((1, 2)) > 0
        assert moved.tolist() == [k == gene for k in range(3)]


def test_fair_gradients_are_the_sum_of_single_ones():
    family = family_of("fairnas")
    family.training_step(batch(), 4)
    expected = [torch.zeros_like(p) for p in family.supernet.parameters()]
    for path in family.paths(4):
        loss = nn.functional.cross_entropy(family.supernet(batch().images, path), batch().labels)
        for total, gradient in zip(expected, torch.autograd.grad(loss, family.supernet.parameters()), strict=True):
            total += gradient
    for parameter, gradient in zip(family.supernet.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("name", ["individual", *SAMPLING])
def test_a_loss_that_is_not_finite_names_the_genotype_and_touches_nothing(name):
    family = family_of(name)
    before = copy.deepcopy(family.network.state_dict())
    with pytest.raises(NotFinite, match=r"the training loss of [0-2]{3} became nan: lower optimizer\.lr"):
        family.training_step(batch(value=float("nan")), 0)
    for key, value in family.network.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", SAMPLING)
def test_training_repeats_and_goes_on_where_it_was(name):
    options = {"updates": 2, "samples": 3} if name == "enas" else {}
    whole, half = family_of(name, **options), family_of(name, **options)
    losses = train(whole)
    first = train(half, steps=3)
    resumed = family_of(name, **options)
    resumed.network.load_state_dict(copy.deepcopy(half.network.state_dict()))
    resumed.load_state_dict(copy.deepcopy(half.state_dict()))
    rest = train(resumed, start=3)
    assert first == losses[:3]
    assert rest[0] == losses[3]  # later ones lack the momentum that belongs to the optimizer
    assert [resumed.paths(s) for s in range(6, 9)] == [resumed.paths(s) for s in range(6, 9)]


def test_state_of_another_family_or_space_is_refused():
    state = family_of("spos").state_dict()
    with pytest.raises(UserError, match=r"the checkpoint is of family=spos, not of family=fairnas"):
        family_of("fairnas").load_state_dict(state)
    with pytest.raises(UserError, match=r"the checkpoint is of another space: its hash is \w{12}, that of space=lines"):
        family_of("spos", LineSpace(forbidden=(1, 1, 1))).load_state_dict(state)


# --- ENAS -------------------------------------------------------------------------------------------------------------


def test_the_controllers_probabilities_are_those_it_writes_by():
    controller = Controller((2, 3), hidden=4, layers=1, temperature=1.0, tanh=3.0, seed=3)
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter.mul_(8)
    everything = torch.tensor([(i, j) for i in range(2) for j in range(3)])
    logs, entropy = controller.log_probabilities(everything)
    assert float(logs.detach().exp().sum()) == pytest.approx(1, abs=1e-6)
    assert entropy.min() > 0
    drawn = Counter(map(tuple, controller.write(6000, generator_of(1)).tolist()))
    expected = (6000 * logs.detach().double().softmax(0)).tolist()  # scipy asks for sums that are equal to the digit
    assert chisquare([drawn[tuple(g)] for g in everything.tolist()], expected).pvalue > 0.01


def test_the_controller_learns_what_is_rewarded():
    family = family_of("enas", updates=60, samples=10, lr=0.02)
    family._accuracy = lambda genotype, images, labels: float(genotype[0] == 2) + float(genotype[2] == 1)
    found = family.end_epoch(endless())
    assert found["reward"] > 1
    written = family.controller.write(1, None)[0].tolist()
    assert (written[0], written[2]) == (2, 1)


def test_enas_baseline_moves_by_a_hundredth():
    family = family_of("enas", updates=1, samples=2, entropy_weight=0.0)
    rewards = iter([1.0, 0.0])
    family._accuracy = lambda *_: next(rewards)
    family.end_epoch(endless())
    assert family.baseline == pytest.approx(0.99)


def test_enas_derives_the_best_of_what_it_writes():
    family = family_of("enas", candidates=20)
    with pytest.raises(UserError, match=r"family=enas scores genotypes on pictures"):
        family.derive()
    family.scorer = lambda genotypes: [float(sum(g)) for g in genotypes]
    found = family.derived()
    assert found == family.derived()
    assert sum(found) >= 4


# --- ASNG -------------------------------------------------------------------------------------------------------------


def test_ranking_utilities():
    assert utilities([2.0, 1.0]) == [-1.0, 1.0]
    assert utilities([1.0, 1.0]) == [0.0, 0.0]
    assert utilities([3.0, 1.0, 2.0, 4.0, 0.0, 5.0, 6.0, 7.0]) == [0, 0.5, 0, 0, 0.5, 0, -0.5, -0.5]
    assert utilities([1.0, 1.0, 2.0, 3.0]) == [0.5, 0.5, 0.0, -1.0]


def test_whitened_gradient_has_the_fisher_norm():
    distribution = AdaptiveCategorical((3, 4, 2))
    theta = torch.tensor([[0.2, 0.3, 0.5, 0], [0.1, 0.2, 0.3, 0.4], [0.7, 0.3, 0, 0]], dtype=torch.float64)
    distribution.theta.copy_(theta)
    gradient = torch.tensor([[0.3, -0.1, -0.2, 0], [0.1, 0.2, -0.4, 0.1], [-0.2, 0.2, 0, 0]], dtype=torch.float64)
    fisher = (gradient**2 / theta.clamp_min(1e-300))[distribution.mask].sum()
    torch.testing.assert_close(distribution._whitened(gradient).square().sum(), fisher)


def test_asng_leaves_a_tie_alone_and_stays_in_its_bounds():
    distribution = AdaptiveCategorical((3, 3, 3))
    before = distribution.theta.clone()
    assert not distribution.update([(0, 0, 0), (1, 1, 1)], [1.0, 1.0])
    assert torch.equal(distribution.theta, before)
    for step in range(200):
        drawn = [distribution.sample(generator_of(step, k)) for k in range(2)]
        distribution.update(drawn, [-float(g == (2, 0, 1)) - 0.1 * (g[0] == 2) - 0.1 * (g[2] == 1) for g in drawn])
        assert distribution.theta.sum(1).tolist() == pytest.approx([1, 1, 1])
        assert float(distribution.theta.min()) >= 1 / (3 * 2) - 1e-12
    assert distribution.likeliest() == (2, 0, 1)


def test_asng_honours_its_largest_delta():
    free, bound = AdaptiveCategorical((3, 3, 3)), AdaptiveCategorical((3, 3, 3), most=1.05)
    for step in range(30):
        for distribution in (free, bound):
            distribution.update([(2, 0, 1), (0, 1, 2)], [0.0, 1.0] if step % 2 else [1.0, 0.0])
    assert float(free.ratio) > 1.05
    assert float(bound.ratio) == pytest.approx(1.05)


def test_asng_needs_something_to_learn():
    with pytest.raises(UserError, match=r"leaves gene 0 with 2 choices of 2 genes nothing to learn"):
        AdaptiveCategorical((2, 2))


# --- few-shot ---------------------------------------------------------------------------------------------------------


def test_few_shot_splits_once_and_each_part_owns_its_share():
    family = family_of("few_shot", gene=1, groups=[[0, 2], [1]], joint=0.5)
    train(family, steps=3, epochs=2)
    joint = copy.deepcopy(family.supernet.state_dict())
    family.begin_epoch(Progress(1, 2, 3))
    assert family.is_split
    for part in family.parts:
        assert all(torch.equal(value, joint[key]) for key, value in part.state_dict().items())
    paths = family.paths(5)
    assert [path[1] in group for path, group in zip(paths, ([0, 2], [1]), strict=True)] == [True, True]
    train(family, steps=6, start=4)
    assert all(torch.equal(value, joint[key]) for key, value in family.supernet.state_dict().items())
    assert not torch.equal(family.parts[0].head, family.parts[1].head)
    assert family.net_of((0, 1, 0)) is family.parts[1]
    counts = Counter(family.paths(step)[0] for step in range(3400))
    assert len(counts) == 17
    assert chisquare(list(counts.values())).pvalue > 0.01


@pytest.mark.parametrize("groups", [[[0], [1]], [[0, 1], [1, 2]], [[0, 1, 2], []]])
def test_few_shot_groups_cover_all_options(groups):
    with pytest.raises(UserError, match=r"family\.groups=.* must hold each of the 3 options of gene 0 once"):
        family_of("few_shot", groups=groups)


def test_few_shot_with_one_group_is_no_split():
    with pytest.raises(UserError, match=r"splits nothing"):
        family_of("few_shot", groups=[[0, 1, 2]])


# --- individual, searching, options -----------------------------------------------------------------------------------


def test_individual_search_scores_what_it_trained():
    family = family_of("individual", candidates=3)
    train(family)
    family.scorer = lambda genotypes: [float(i == 1) for i in range(len(genotypes))]
    assert family.derived() == family.candidates[1]
    other = next(g for g in family.space if g not in family.candidates)
    with pytest.raises(UserError, match=r"was not trained: family=individual shares no weights"):
        family.net_of(other)


def test_small_spaces_are_scored_whole_and_large_ones_searched():
    asked = []

    def score(genotypes):
        asked.extend(genotypes)
        return [float(g == (2, 1, 0)) for g in genotypes]

    family = family_of("spos")
    family.scorer = score
    assert family.derived() == (2, 1, 0)
    assert len(asked) == 26
    asked.clear()
    large = family_of("spos", LineSpace((3,) * 8, (0,) * 8), search={"population": 10, "generations": 4, "parents": 3})
    large.scorer = lambda genotypes: [asked.append(g) or float(sum(g)) for g in genotypes]
    assert sum(large.derived()) >= 12
    assert len(asked) == 40 == len(set(asked))


def test_a_limit_is_kept_or_refused():
    family = family_of("spos", search={"limit": {"macs": 3}})
    family.scorer = lambda genotypes: [float(sum(g)) for g in genotypes]
    assert sum(family.derived()) == 2
    with pytest.raises(UserError, match=r"family\.search\.limit=.*: no genotype of space=lines is within it"):
        family_of("spos", search={"limit": {"macs": 1}})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sops", {}, r"family='sops' is not known.*did you mean 'spos'"),
        ("spos", {"gene": 1}, r"family\.gene is no option of spos, choose one of label_smoothing, search"),
        ("enas", {"decay": 1.0}, r"family\.decay=1\.0 must be a number of at least 0 and below 1"),
        ("enas", {"samples": 0}, r"family\.samples=0 must be a whole number of at least 1"),
        ("asng", {"samples": 1}, r"family\.samples=1 must be a whole number of at least 2"),
        ("few_shot", {"gene": 3}, r"family\.gene=3 must be a whole number of at least 0 and below 3"),
        ("few_shot", {"joint": 1.0}, r"family\.joint=1\.0"),
        ("spos", {"search": {"parents": 60}}, r"family\.search\.parents=60 .* at most 50"),
        ("spos", {"search": {"popluation": 6}}, r"family\.search='popluation' is not known"),
        ("spos", {"label_smoothing": 1.0}, r"label_smoothing=1\.0 must be"),
        ("individual", {"candidates": 27}, r"count=27 is more than the 26 genotypes"),
    ],
)
def test_mistakes_are_one_line(name, options, message):
    with pytest.raises(UserError, match=message):
        family_of(name, **options)
