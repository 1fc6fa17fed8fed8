"""Genotypes by perturbation (DARTS-PT): what the mixture misses most stays, whatever its gate."""

from __future__ import annotations

import copy

import pytest
import torch

from effkit.errors import UserError
from ws_nas.families.base import Batch
from ws_nas.families.progress import Progress
from ws_nas.families.registry import make_family
from ws_nas.families.soft import decisions_due
from ws_nas.spaces.registry import get_space
from ws_nas.supernets.darts import EDGES
from ws_nas.supernets.mixed import Mixture

SIZES = {"digits_chain": {"width": 4}, "nb201_tiny": {"channels": 2}, "darts_tiny": {"search_channels": 2}}


def family_of(name="darts", space="digits_chain", seed=1, **options):
    torch.manual_seed(seed)
    made = get_space(space, **SIZES[space] | ({"search_channels": 4} if name == "pc_darts" else {}))
    supernet = made.supernet(affine=False, track_running_stats=False)
    return make_family(name, made, supernet, seed, select="perturbation", select_batches=2, **options)


def pictures(count=2, size=6):
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(count, size, 1, 8, 8, generator=generator)
    return list(zip(images, torch.randint(10, (count, size), generator=generator), strict=True))


class Known(Mixture):
    """Its output is the sum of gates times needs; picture i is answered rightly where that is above its threshold."""

    def __init__(self, mixture, needs):
        super().__init__(mixture.supernet, mixture.tables)
        self.needs, self.inputs, self.genotype = needs, mixture.inputs, mixture.genotype
        self.most = sum(float(n.sum()) for n in needs)

    def forward(self, x, gates, run=None, edges=None):
        total = sum((g * n).sum() for g, n in zip(gates, self.needs, strict=True))
        above = total - self.most * x.mean((1, 2, 3))
        return torch.stack([above, torch.zeros_like(above)], 1)

    def batches(self):
        """Thresholds from 0 to the largest output there is."""
        images = torch.linspace(0, 1, 2001).view(-1, 1, 1, 1)
        return [(images, torch.zeros(len(images), dtype=torch.long))]


def test_a_chain_whose_strongest_operations_are_not_those_it_needs():
    family = family_of()
    needs = torch.tensor([[1.0, 0.1, 3.0], [0.2, 4.0, 0.1], [2.0, 1.0, 0.5], [0.1, 0.2, 0.3]])
    with torch.no_grad():  # gates of 0.4, 0.3, 0.3: the first is the strongest everywhere
        family.alphas.values[0].copy_(torch.tensor([0.4, 0.3, 0.3]).log().repeat(4, 1))
    assert family.derived() == (0, 0, 0, 0)
    family.mixture = Known(family.mixture, [needs])
    family.decide(family.mixture.batches())
    # Missed are gate times need: 0.4 1.0 < 0.3 3.0, 0.3 4.0 is the most, 0.4 2.0 is the most, 0.3 0.3 is.
    assert family.derived() == (2, 1, 0, 2)
    assert family.decided == len(family.decisions) == 4
    assert [row.tolist() for row in family.shares()[0]] == [[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("name", ["darts", "fairdarts", "pc_darts"])
def test_darts_cells_keep_the_operations_and_then_the_inputs_that_are_missed_most(name):
    family = family_of(name, "darts_tiny", **({"partial": 2, "warmup": 0} if name == "pc_darts" else {}))
    generator = torch.Generator().manual_seed(5)
    needs = [1 + torch.rand(14, 8, generator=generator) for _ in range(2)]
    with torch.no_grad():
        for value in list(family.alphas.values)[:2]:
            value.copy_(0.3 * torch.randn(14, 8, generator=generator))
    gates = family.probabilities()
    expected = []
    for gate, need in zip(gates, needs, strict=True):
        best = (gate * need)[:, 1:].argmax(1)  # `none` is never derived
        strengths = torch.zeros(14, 8)
        strengths[range(14), 1 + best] = need[range(14), 1 + best]  # its gate is 1 by then
        expected.append(strengths)
    genotype = family.mixture.genotype(expected)
    assert genotype != family.derived()
    family.mixture = Known(family.mixture, needs)
    assert len(family.decisions) == 28 + 6
    family.decide(family.mixture.batches())
    assert family.derived() == genotype
    assert sum(k == 0 for edges in family.chosen for k in edges) == 2 * (14 - 8)  # eight of 14 edges stay
    for t, edges in enumerate(family.chosen if name == "pc_darts" else []):  # else their other channels would go by
        kept = torch.tensor([k != 0 for k in edges])
        assert (family.weights()[t] > 0).tolist() == kept.tolist()
        assert [int(kept[[node == target for _, target in EDGES]].sum()) for node in range(4)] == [2, 2, 2, 2]


@pytest.mark.parametrize(("name", "space"), [("darts", "nb201_tiny"), ("fairdarts", "digits_chain")])
def test_the_decided_mixture_is_the_network_that_is_derived(name, space):
    family = family_of(name, space)
    state = copy.deepcopy(family.network.state_dict())
    family.decide(pictures())
    images = pictures()[0][0]
    family.supernet.eval()
    assert all(torch.equal(v, state[k]) for k, v in family.network.state_dict().items())
    (found,) = family.shown(images)
    chosen = [list(row).index(True) for row in family.gates(list(family.alphas.values), 0, 0)[1][0]]
    assert tuple(chosen) == family.derived()
    family.supernet.train()
    torch.testing.assert_close(found, family.supernet(images, family.derived()), rtol=1e-5, atol=1e-5)


def train(family, epochs, first=0, steps=2):
    batches = iter(pictures(40))
    for epoch in range(epochs):
        family.begin_epoch(Progress(epoch, epochs, steps))
        for step in range(epoch * steps, (epoch + 1) * steps):
            (images, labels), (held, held_labels) = next(batches), next(batches)
            if epoch >= first:
                family.training_step(Batch(images, labels, held, held_labels), step)
        if epoch >= first:
            found = family.end_epoch(iter(pictures()))
    return found


def test_decisions_fall_over_the_last_epochs_and_fix_the_architecture():
    assert [decisions_due(7, Progress(e, 5, 1), 3) for e in range(5)] == [0, 0, 3, 5, 7]
    family = family_of(select_epochs=2)
    seen, before = [], []
    inner = family.end_epoch

    def watched(validation):
        before.append([v.detach().clone() for v in family.alphas.values])
        found = inner(validation)
        seen.append(found["decided"])
        return found

    family.end_epoch = watched
    train(family, 4)
    assert seen == [0, 0, 2, 4]
    assert not torch.equal(before[1][0], before[2][0])
    assert torch.equal(before[2][0], before[3][0])


def test_a_resumed_search_decides_as_a_whole_one():
    whole, half = family_of(select_epochs=2), family_of(select_epochs=2)
    train(whole, 3)
    inner = half.end_epoch
    kept = []
    half.end_epoch = lambda validation: kept.append((inner(validation), copy.deepcopy(half.state_dict())))
    train(half, 3)
    resumed = family_of(select_epochs=2)
    resumed.load_state_dict(kept[1][1])  # after the second epoch, with half of the decisions
    assert resumed.decided == 2
    train(resumed, 3, first=2)
    assert resumed.chosen == whole.chosen
    assert resumed.derived() == whole.derived()
    older = {k: v for k, v in whole.state_dict().items() if k not in ("decided", "chosen")}
    fresh = family_of()
    fresh.load_state_dict(older)
    assert fresh.decided == 0


def test_a_cell_that_is_none_of_the_space_gives_way_to_the_nearest():
    space = get_space("nb201_tiny", channels=2, connected=True)
    family = make_family("darts", space, space.supernet(), 0, select="perturbation")
    family.chosen, family.decided = [[0] * 6], 6  # `none` everywhere
    assert space.is_valid(family.derived())


@pytest.mark.parametrize(
    ("name", "space", "options", "message"),
    [
        ("r_darts", "digits_chain", {}, r"select=perturbation does not fit family=r_darts.*use family=darts"),
        ("gdas", "digits_chain", {}, r"family\.select is no option of gdas"),
        ("p_darts", "darts_tiny", {}, r"family\.select is no option of p_darts"),
        ("spos", "digits_chain", {}, r"family\.select is no option of spos"),
        ("darts", "digits_chain", {"select_epochs": 0}, r"family\.select_epochs=0 must be a whole number of at least"),
    ],
)
def test_what_does_not_fit_is_refused(name, space, options, message):
    made = get_space(space)
    with pytest.raises(UserError, match=message):
        make_family(name, made, made.supernet(), select="perturbation", **options)


def test_words_that_would_change_nothing_are_refused():
    space = get_space("digits_chain")
    with pytest.raises(UserError, match=r"family\.select='best' is not known, choose one of strength, perturbation"):
        make_family("darts", space, space.supernet(), select="best")
    with pytest.raises(UserError, match=r"family\.select_epochs=2 is of family\.select=perturbation, not of strength"):
        make_family("darts", space, space.supernet(), select_epochs=2)
    family = family_of(select_epochs=3, warmup=1)
    with pytest.raises(
        UserError, match=r"select_epochs=3 leaves no epoch.*trainer\.max_epochs=3 less family\.warmup=1"
    ):
        family.begin_epoch(Progress(0, 3, 1))
