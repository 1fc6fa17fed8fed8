"""Families on DARTS cells, and families that stop: counts, derivation, stages, eigenvalues."""

from __future__ import annotations

import copy

import pytest
import torch

from effkit.errors import UserError
from ws_nas.families.base import Batch, generator_of
from ws_nas.families.progress import Progress
from ws_nas.families.progressive import limit_skips
from ws_nas.families.registry import make_family
from ws_nas.families.stopping import eigenvalue_stop
from ws_nas.spaces.registry import get_space
from ws_nas.supernets.mixtures import darts_genes, mixture_of, shuffled
from ws_nas.supernets.norm import Collecting
from ws_nas.supernets.partial import PartialDartsSupernet

SPACES = {"digits_chain": {"width": 4}, "nb201_tiny": {"channels": 2}, "darts_tiny": {"search_channels": 2}}


def family_of(name, space="digits_chain", seed=1, dtype=torch.float64, **options):
    torch.manual_seed(seed)
    space = get_space(space, **SPACES[space])
    supernet = space.supernet(affine=False, track_running_stats=False).to(dtype)
    return make_family(name, space, supernet, seed, **options)


def batch(dtype=torch.float64):
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(2, 4, 1, 8, 8, generator=generator).to(dtype)
    labels = torch.randint(10, (2, 4), generator=generator)
    return Batch(images[0], labels[0], images[1], labels[1])


def parameters(mixture, kept=8):
    """Of a mixture's network with the first so many of its 8 operations on every edge."""
    net = mixture.supernet
    idle = [op for cell in net.cells for edge in cell for op in edge[kept - 1 :]]
    return sum(p.numel() for p in net.parameters()) - sum(p.numel() for op in idle for p in op.parameters())


@pytest.mark.slow
def test_sizes_of_search_networks():
    with torch.device("meta"):
        partial = PartialDartsSupernet(get_space("darts").search, "x")
        assert sum(p.numel() for p in partial.parameters()) == 299_578
        for layers, kept, expected in ((5, 8, 1_275_834), (11, 5, 887_226), (17, 3, 228_474)):
            found = get_space("darts", search_layers=layers).supernet()
            assert parameters(mixture_of(found), kept) == expected


def test_derivation_of_darts_cells():
    table = torch.zeros(14, 8)
    table[:, 0] = 9.0  # none is never derived
    table[1, 4] = 0.3  # node 0 has inputs 0 and 1 only
    table[2:5, 5] = torch.tensor([0.1, 0.3, 0.2])  # node 1: the second and third
    table[5:9, 1] = 0.5  # node 2: equal ones, the first two
    table[9:, 7] = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])  # node 3: the last two
    genes = darts_genes(table)
    assert genes == [0, 0, 3, 2, 4, 4, 0, 0, 0, 9, 6, 6]


def test_partial_channels_are_shuffled_by_a_permutation():
    x = torch.arange(8.0)[None, :, None, None]
    found = shuffled(x, 4).flatten().tolist()
    assert found == [0, 2, 4, 6, 1, 3, 5, 7]


def test_pc_darts_edges_compete_within_a_node():
    family = family_of("pc_darts", "darts_tiny", partial=2, warmup=0)
    with torch.no_grad():
        for value in family.alphas.values:
            value.add_(torch.randn(value.shape, generator=generator_of(3)))
    for weights in family.weights():
        parts = weights.split([2, 3, 4, 5])
        assert [float(part.detach().sum()) for part in parts] == pytest.approx([1.0] * 4, abs=1e-6)
    torch.testing.assert_close(family.strengths()[1], family.probabilities()[1] * family.weights()[1][:, None])
    with pytest.raises(UserError, match=r"mixes channels that no operation sees, so that it has no sub-networks"):
        family.supernet(batch().images, family.derived())


def test_pc_darts_needs_channels_that_divide():
    with pytest.raises(UserError, match=r"family\.partial=3 must be a whole number that divides the supernet's 2 chan"):
        family_of("pc_darts", "darts_tiny", partial=3)
    for name in ("pc_darts", "p_darts"):
        with pytest.raises(UserError, match=rf"family={name} needs cells of DARTS, space=digits_chain has none"):
            family_of(name)


def test_p_darts_goes_through_its_stages():
    family = family_of("p_darts", "darts_tiny", cells=[3, 3, 4], warmup=1, dtype=torch.float32)
    counts, drops = [], []
    for epoch in range(6):
        family.begin_epoch(Progress(epoch, 6, 1))
        found = family.training_step(batch(torch.float32), epoch)
        assert float(found["stage"]) == epoch // 2
        counts.append({int(n) for mask in family.masks[family.stage] for n in mask.sum(1)})
        drops.append(family.mixture.skip_dropout)
        for p, mask in zip(family.probabilities(), family.masks[family.stage], strict=True):
            assert (p[~mask] == 0).all()
    assert counts == [{8}, {8}, {5}, {5}, {3}, {3}]
    assert drops == pytest.approx([0, 0, 0.4, 0.4, 0.7, 0.7])
    assert len(family.supernet.cells) == 4
    assert family.mixture.skips(family.derived()) <= 2
    with pytest.raises(UserError, match=r"trainer\.max_epochs=2 is fewer than the 3 stages of family=p_darts"):
        family_of("p_darts", "darts_tiny", cells=[3, 3, 4]).begin_epoch(Progress(0, 2, 1))
    dropped = next(
        g
        for g in family.space.sample_many(50, 0)
        if not family.masks[2][0][0, 1 + g[1]] or not family.masks[2][0][1, 1 + g[2]]
    )
    with pytest.raises(UserError, match=r"was dropped at node 0, and has no trained weights"):
        family.net_of(dropped)
    assert family.net_of(family.derived()) is family.supernet
    other = family_of("p_darts", "darts_tiny", cells=[3, 3, 4], warmup=1, dtype=torch.float32)
    other.load_state_dict(copy.deepcopy(family.state_dict()))
    assert (other.stage, other.derived()) == (2, family.derived())


def test_the_limit_of_skips_takes_the_weakest_away_first():
    strengths = torch.full((14, 8), 0.01)
    strengths[:, 3] = torch.linspace(0.5, 0.9, 14)  # skip connections everywhere
    strengths[:, 4] = 0.3
    for most in (8, 2, 0):
        limited = limit_skips(strengths, most)
        genes = darts_genes(limited)
        assert sum(g == 2 for k, g in enumerate(genes) if k % 3) <= most
    gone = (limit_skips(strengths, 2)[:, 3] == 0).tolist()
    assert gone == sorted(gone, reverse=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kept": [8, 5, 3, 2]}, r"family\.kept=\[8, 5, 3, 2\] must fall from 8 to 1"),
        ({"cells": [3, 3]}, r"family\.cells=\[3, 3\] and family\.dropout=\[0\.0, 0\.4, 0\.7\] need one value a stage"),
        ({"cells": [3, 3, 2]}, r"family\.cells=2 must be a whole number of at least 3"),
    ],
)
def test_stages_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=message):
        family_of("p_darts", "darts_tiny", **options)


# --- R-DARTS ----------------------------------------------------------------------------------------------------------


def test_the_eigenvalue_stop_on_a_scripted_series():
    epochs = list(range(1, 40, 2))
    flat = [1.0] * len(epochs)
    assert all(eigenvalue_stop(flat[: n + 1], epochs[: n + 1]) is None for n in range(len(flat)))
    grown = [1.0] * 10 + [2.0] * 10
    stops = [eigenvalue_stop(grown[: n + 1], epochs[: n + 1]) for n in range(len(grown))]
    # Two of five are grown in the 12th evaluation: the mean is 1.4 against 1.0 four evaluations earlier.
    assert stops.index(7) == 11
    assert stops[:11] == [None] * 11
    early = [1.0, 1.0, 1.0, 1.0, 9.0]
    assert eigenvalue_stop(early, epochs[:5]) is None  # epoch 9: too early
    assert eigenvalue_stop(early, epochs[:5], first=9) == 0


def test_r_darts_takes_the_genotype_of_the_earlier_epoch():
    family = family_of("r_darts", every=1, first=0, back=1, window=1, factor=1.3, dtype=torch.float32)
    series = iter([1.0, 1.0, 5.0])
    family._eigenvalue = lambda batches: next(series)
    derived = []
    for epoch in range(3):
        family.begin_epoch(Progress(epoch, 5, 1))
        with torch.no_grad():
            family.alphas.values[0].zero_()[:, epoch] = 1.0
        derived.append(family.derive())
        found = family.end_epoch(iter([]))
    assert found == {"skips": 0.0, "eigenvalue": 5.0, "stopped": 1.0}
    assert family.derived() == derived[1] != derived[2]
    assert not family.due(0)
    other = family_of("r_darts", dtype=torch.float32)
    other.load_state_dict(copy.deepcopy(family.state_dict()))
    assert other.derived() == derived[1]


def test_r_darts_eigenvalue_is_that_of_the_dense_hessian():
    family = family_of("r_darts", seed=2)
    family.alphas.double()
    images, labels = batch().validation
    found = family._eigenvalue([(images, labels)])

    def loss(flat):
        with Collecting():
            return family.loss(family.logits(images, [flat.view(4, 3)], 0, 0), labels)

    hessian = torch.autograd.functional.hessian(loss, family.alphas.values[0].detach().flatten())
    eigenvalues = torch.linalg.eigvalsh(hessian)
    assert found == pytest.approx(float(eigenvalues[eigenvalues.abs().argmax()]), rel=1e-3)


def test_too_many_skips_stop_the_architecture():
    family = family_of("r_darts", "nb201_tiny", skips=2, every=5, dtype=torch.float32)
    values = family.alphas.values[0]
    with torch.no_grad():
        values.zero_()
        values[:, 3] = 0.5
        values[0, 1] = 1.0
    assert family.end_epoch(iter([])) == {"skips": 1.0, "stopped": 0.0}
    with torch.no_grad():
        values[4, 1] = 1.0
    assert family.end_epoch(iter([])) == {"skips": 2.0, "stopped": 1.0}
    assert family.derived() == (1, 3, 3, 3, 1, 3)


def test_drop_path_leaves_out_what_is_no_skip():
    mixture = mixture_of(get_space("digits_chain", width=4).supernet())
    mixture.drop_path = 0.5
    x = torch.ones(4000, 1, 1, 1)
    (skip, other) = mixture.thinned([torch.nn.Identity(), torch.nn.Identity()], ["identity", "e3k3"])
    assert torch.equal(skip(x), x)
    torch.manual_seed(0)
    kept = other(x)
    assert set(kept.flatten().tolist()) == {0.0, 2.0}
    assert float(kept.mean()) == pytest.approx(1, abs=0.05)
    mixture.eval()
    (alone,) = mixture.thinned([torch.nn.Identity()], ["e3k3"])
    assert torch.equal(alone(x), x)
