"""Mixtures and their gates: what runs, what gets a gradient, and what is derived."""

from __future__ import annotations

import copy
from itertools import product

import pytest
import torch

from effkit.errors import UserError
from ws_nas.families.alphas import gumbel, likeliest_valid, mean_entropy, straight_through
from ws_nas.families.base import Batch, NotFinite, generator_of
from ws_nas.families.costs import expected_cost, operation_costs
from ws_nas.families.progress import Progress
from ws_nas.families.proxyless import alpha_gradient, latency_loss
from ws_nas.families.reference import reference_second_order
from ws_nas.families.registry import make_family
from ws_nas.spaces.registry import get_space
from ws_nas.supernets.mixed import mix
from ws_nas.supernets.mixtures import mixture_of

RELAXED = ["darts", "gdas", "snas", "proxyless", "fairdarts", "entropy"]
SPACES = {"digits_chain": {"width": 4}, "nb201_tiny": {"channels": 2}, "darts_tiny": {"search_channels": 2}}


def family_of(name, space="digits_chain", seed=1, dtype=torch.float64, **options):
    torch.manual_seed(seed)
    space = get_space(space, **SPACES[space])
    supernet = space.supernet(affine=False, track_running_stats=False).to(dtype)
    if name == "proxyless":
        options = {"warmup": 0, "every": 1, **options}
    family = make_family(name, space, supernet, seed, **options)
    family.begin_epoch(Progress(1, 3, 5))
    return family


def batch(dtype=torch.float64, value=None):
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(2, 4, 1, 8, 8, generator=generator).to(dtype)
    labels = torch.randint(10, (2, 4), generator=generator)
    if value is not None:
        images.fill_(value)
    return Batch(images[0], labels[0], images[1], labels[1])


# --- mixtures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES)
def test_a_one_hot_mixture_is_the_path(space):
    made = get_space(space, **SPACES[space])
    supernet = made.supernet().double().eval()
    mixture = mixture_of(supernet)
    for genotype in made.sample_many(5, 0):
        gates = [g.double() for g in mixture.one_hot(genotype)]
        torch.testing.assert_close(mixture(batch().images, gates), supernet(batch().images, genotype))
        assert mixture.genotype(gates) == genotype


@pytest.mark.parametrize("space", SPACES)
def test_recomputing_gives_the_same_gradients(space):
    made = get_space(space, **SPACES[space])
    supernet = made.supernet(track_running_stats=False).double()
    found = []
    for recompute in (False, True):
        mixture = mixture_of(supernet, recompute=recompute)
        gates = [torch.full(t.shape, 0.3, dtype=torch.float64, requires_grad=True) for t in mixture.tables]
        loss = mixture(batch().images, gates).square().sum()
        found.append(torch.autograd.grad(loss, [*gates, *supernet.parameters()]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_gates_of_idle_operations_get_a_gradient_and_change_nothing():
    x = torch.randn(2, 3, 4, 4)
    gates = torch.tensor([0.0, 1.0, 0.0], requires_grad=True)
    calls = []

    def operation(k):
        return lambda given: calls.append(k) or (k + 2) * given

    found = mix([operation(0), operation(1), operation(2)], x, gates, [False, True, False])
    assert calls == [1]
    assert torch.equal(found, 3 * x)
    (gradient,) = torch.autograd.grad(found.sum(), gates)
    assert (gradient != 0).all()


def test_nothing_as_an_operation_gives_zeros_even_of_nan():
    x = torch.full((1, 1, 2, 2), float("nan"))
    assert torch.equal(mix([None, torch.sin], x, torch.tensor([1.0, 0.0]), [True, False]), torch.zeros_like(x))


def test_spaces_without_a_mixture_are_refused():
    with pytest.raises(UserError, match=r"space=Linear has no mixture of operations: use a family that trains single"):
        mixture_of(torch.nn.Linear(1, 1))


# --- gates ------------------------------------------------------------------------------------------------------------


def test_straight_through_gates():
    p = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]], requires_grad=True)
    hard, index = straight_through(p)
    torch.testing.assert_close(hard.detach(), torch.tensor([[0.0, 1, 0], [1, 0, 0]]))
    assert index.tolist() == [1, 0]
    (gradient,) = torch.autograd.grad((hard * torch.arange(6.0).view(2, 3)).sum(), p)
    torch.testing.assert_close(gradient, torch.arange(6.0).view(2, 3))


def test_gumbel_noise_has_the_mean_and_variance_it_should():
    noise = gumbel(torch.zeros(20000, dtype=torch.float64), generator_of(1))
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.03)
    assert float(noise.var()) == pytest.approx(torch.pi**2 / 6, abs=0.06)


def test_gdas_runs_the_drawn_path_and_all_alphas_get_a_gradient():
    family = family_of("gdas")
    images, labels = batch().validation
    values = list(family.alphas.values)
    _, run = family.gates(values, 3, 0)
    path = tuple(row.index(True) for row in run[0])
    logits = family.logits(images, values, 3, 0)
    torch.testing.assert_close(logits, family.supernet(images, path), rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(family.loss(logits, labels), values)
    assert (gradient != 0).all()
    torch.testing.assert_close(gradient.sum(1), torch.zeros(4), atol=1e-5, rtol=0)


def test_gdas_draws_by_the_probabilities_and_cools():
    family = family_of("gdas")
    with torch.no_grad():
        family.alphas.values[0].copy_(torch.tensor([0.5, 0.3, 0.2]).log().repeat(4, 1))
    counts = torch.zeros(4, 3)
    for step in range(1000):
        counts += torch.tensor(family.gates(list(family.alphas.values), step, 1)[1][0], dtype=torch.float32)
    torch.testing.assert_close(counts / 1000, torch.tensor([0.5, 0.3, 0.2]).repeat(4, 1), atol=0.05, rtol=0)
    cooled = []
    for epoch in range(3):
        family.begin_epoch(Progress(epoch, 3, 5))
        cooled.append(family.temperature)
    assert cooled == pytest.approx([10, 5.05, 0.1])


def test_snas_follows_one_loss_and_pays_for_what_is_dear():
    family = family_of("snas")
    before = family.alphas.values[0].detach().clone()
    family.training_step(batch(), 0)
    assert not torch.equal(family.alphas.values[0], before)
    assert all(p.grad is not None for p in family.network.parameters())
    dear = family_of("snas", resource=1e6, lr=0.3, start=1.0, end=1.0)
    for step in range(20):
        dear.training_step(batch(), step)
    cheapest = min(dear.space, key=lambda g: dear.space.cost(g).macs)
    assert dear.derived() == cheapest


# --- ProxylessNAS -----------------------------------------------------------------------------------------------------


def test_gate_gradients_are_those_of_the_expected_loss():
    alpha = torch.tensor([[0.3, -0.2, 0.5], [0.1, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    losses = torch.tensor([[1.0, 3.0, 2.0], [0.5, 0.2, 4.0]], dtype=torch.float64)  # of each operation of each edge
    p = alpha.softmax(-1)
    # Losses that are sums over edges are linear in the gates, so that dL/dg is the loss of the operation.
    expected_loss = sum(p[0, i] * p[1, j] * (losses[0, i] + losses[1, j]) for i, j in product(range(3), repeat=2))
    (expected,) = torch.autograd.grad(expected_loss, alpha)
    found = alpha_gradient(losses, p.detach())
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(1), torch.zeros(2, dtype=torch.float64))


def test_two_updated_parameters_leave_the_other_probabilities_alone():
    family = family_of("proxyless", "nb201_tiny", lr=0.5)
    before = family.probabilities()[0].detach().clone()
    family.update(batch(), 2)
    after = family.probabilities()[0].detach()
    _, (mask,) = family_of("proxyless", "nb201_tiny", lr=0.5)._drawn(2)
    assert mask.sum(1).tolist() == [2] * 6
    torch.testing.assert_close(after[~mask], before[~mask])
    assert not torch.allclose(after[mask], before[mask], atol=1e-3)


def test_proxyless_gate_gradient_on_the_network():
    family = family_of("proxyless", mode="full")
    images, labels = batch().validation
    (gates,), _ = family._drawn(4)
    gates.requires_grad_()
    loss = family.loss(family.mixture(images, [gates.double()]), labels)
    (of_gates,) = torch.autograd.grad(loss, gates)
    family.apply = lambda gradients: seen.extend(gradients)
    seen = []
    family.update(batch(), 4)
    torch.testing.assert_close(seen[0], alpha_gradient(of_gates, family.probabilities()[0].detach()))


def test_latency_losses():
    loss, cost = torch.tensor(2.0), torch.tensor(8.0)
    assert float(latency_loss(loss, cost, 4.0, "sum", 0.1)) == pytest.approx(2.1)
    assert float(latency_loss(loss, cost, 2.0, "product")) == pytest.approx(0.2 * 2 * 3**0.3)
    assert float(latency_loss(loss, cost, 2.0, "none")) == 2.0
    for expected, reference in ((torch.tensor(0.5), 4.0), (torch.tensor(8.0), 1.0)):
        with pytest.raises(UserError, match=r"has no logarithm above 0: use a smaller unit, or family\.penalty=sum"):
            latency_loss(loss, expected, reference, "product")


def test_a_penalty_pulls_towards_what_is_cheap():
    space = get_space("digits_chain", width=4)
    least = min(space.cost(g).macs for g in space)
    family = family_of("proxyless", mode="full", penalty="sum", reference=float(least), weight=1e3, lr=0.3)
    for step in range(15):
        family.update(batch(), step)
    assert space.cost(family.derived()).macs == least
    with pytest.raises(UserError, match=r"family\.penalty=sum needs family\.reference, the macs wished for"):
        family_of("proxyless", penalty="sum")


@pytest.mark.parametrize("space", ["digits_chain", "nb201_tiny"])
def test_costs_of_operations_add_up_to_those_of_networks(space):
    made = get_space(space, **SPACES[space])
    rest, table = operation_costs(made)
    for genotype in made.sample_many(10, 3):
        onehot = torch.zeros(table.shape)
        onehot[range(len(genotype)), list(genotype)] = 1
        assert float(expected_cost([onehot], rest, table)) == pytest.approx(made.cost(genotype).macs)


# --- every relaxed family ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", RELAXED)
def test_a_step_trains_both_and_keeps_them_apart(name, space):
    family = family_of(name, space, dtype=torch.float32)
    before = copy.deepcopy(family.alphas.state_dict())
    found = family.training_step(batch(torch.float32), 0)
    assert set(found) <= {"loss", *family.columns}
    assert all(torch.isfinite(torch.as_tensor(v)).all() for v in found.values())
    assert not all(torch.equal(v, before[k]) for k, v in family.alphas.state_dict().items())
    assert all(v.grad is None for v in family.alphas.values)
    assert any(p.grad is not None for p in family.network.parameters())
    owned = {id(p) for p in family.network.parameters()}
    assert not any(id(v) in owned for v in family.alphas.values)
    assert family.derived() == family.derived()
    assert all(row.sum() == pytest.approx(1, abs=1e-5) for table in family.shares() for row in table)
    (shown,) = family.shown(batch(torch.float32).images)
    assert shown.shape == (4, 10)


@pytest.mark.parametrize("name", RELAXED)
def test_warm_up_trains_weights_only(name):
    family = family_of(name, warmup=2, dtype=torch.float32)
    before = copy.deepcopy(family.alphas.state_dict())
    family.training_step(batch(torch.float32), 0)
    assert all(torch.equal(v, before[k]) for k, v in family.alphas.state_dict().items())
    family.begin_epoch(Progress(2, 4, 5))
    family.training_step(batch(torch.float32), 0)
    assert not all(torch.equal(v, before[k]) for k, v in family.alphas.state_dict().items())


@pytest.mark.parametrize("name", RELAXED)
def test_a_loss_that_is_not_finite_updates_nothing(name):
    family = family_of(name, dtype=torch.float32)
    before = copy.deepcopy(family.alphas.state_dict())
    with pytest.raises(NotFinite, match=r"loss of the whole super-network became nan"):
        family.training_step(batch(torch.float32, float("nan")), 0)
    assert all(torch.equal(v, before[k]) for k, v in family.alphas.state_dict().items())


@pytest.mark.parametrize("name", RELAXED)
def test_state_goes_on_where_it_was(name):
    def steps(family, first, last):
        for step in range(first, last):
            family.training_step(batch(torch.float32), step)
            for p in family.network.parameters():
                p.grad = None
        return family

    whole = steps(family_of(name, dtype=torch.float32), 0, 4)
    half = steps(family_of(name, dtype=torch.float32), 0, 2)
    resumed = family_of(name, dtype=torch.float32)
    resumed.load_state_dict(copy.deepcopy(half.state_dict()))
    steps(resumed, 2, 4)
    for key, value in whole.alphas.state_dict().items():
        assert torch.equal(value, resumed.alphas.state_dict()[key])


def test_ties_are_derived_the_same_everywhere():
    family = family_of("darts")
    with torch.no_grad():
        family.alphas.values[0].zero_()
    assert family.derived() == (0, 0, 0, 0)


def test_the_likeliest_valid_cell_is_derived_where_the_strongest_is_none():
    space = get_space("nb201_tiny", channels=2, connected=True)
    p = torch.full((6, 5), 0.1)
    p[:, 0] = 0.6
    p[3, 1] = 0.3  # the edge from input to output
    found = likeliest_valid(space, [p])
    assert found == (0, 0, 0, 1, 0, 0)
    family = make_family("darts", space, space.supernet(), 0)
    with torch.no_grad():
        family.alphas.values[0].copy_(p.log())
    assert family.derived() == found


# --- DARTS and penalties ----------------------------------------------------------------------------------------------


def gradients_of(order, smooth=False, **options):
    family = family_of("darts", order=order, **options)
    family.alphas.double()
    if smooth:
        for module in list(family.network.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, torch.nn.ReLU):
                    setattr(module, name, torch.nn.Softplus())
    family.weight_optimizer = torch.optim.SGD(family.network.parameters(), lr=0.1, momentum=0.9, weight_decay=3e-4)
    found, _ = family.gradients(batch(), 0)
    return torch.cat([g.flatten() for g in found])


def test_second_order_by_difference_agrees_with_differentiating_twice():
    # Smooth activations: where a ReLU switches within the difference, a second derivative does not see it.
    near, exact, first = (gradients_of(order, smooth=True) for order in ("second", "second_exact", "first"))
    cosine = torch.nn.functional.cosine_similarity
    assert float(cosine(near, exact, dim=0)) > 0.999
    assert float(cosine(first, exact, dim=0)) < 0.9999


def test_second_order_is_that_of_the_published_formulation():
    family = family_of("darts", order="second")
    family.alphas.double()
    optimizer = torch.optim.SGD(family.network.parameters(), lr=0.1, momentum=0.9, weight_decay=3e-4)
    family.weight_optimizer = optimizer
    for step in range(2):  # with momenta
        found, _ = family.gradients(batch(), step)

        def loss(images, labels):
            return lambda model, values: family.loss(model(images, family.probabilities(values)), labels)

        train_loss, val_loss = loss(batch().images, batch().labels), loss(*batch().validation)
        expected = reference_second_order(family.mixture, list(family.alphas.values), train_loss, val_loss, optimizer)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
        optimizer.zero_grad()
        train_loss(family.mixture, list(family.alphas.values)).backward()
        optimizer.step()


@pytest.mark.parametrize("order", ["neumann", "cg"])
def test_implicit_gradients_have_the_first_order_in_them(order):
    found = gradients_of(order, inner_lr=1e-9, terms=1) if order == "neumann" else gradients_of(order, damping=1e9)
    torch.testing.assert_close(found, gradients_of("first"), rtol=1e-4, atol=1e-7)


def test_second_order_needs_the_weights_optimizer():
    with pytest.raises(UserError, match=r"family\.order=second looks one step of the weights' optimizer ahead"):
        family_of("darts", order="second").gradients(batch(), 0)


def test_zero_one_loss_drives_gates_apart():
    family = family_of("fairdarts", zero_one=1e4, lr=0.1, weight_decay=0.0)
    with torch.no_grad():
        family.alphas.values[0].copy_(torch.tensor([[0.3, -0.3, -0.2]] * 4))
    assert float(family.penalty().detach()) == pytest.approx(
        -1e4 * float(((torch.tensor([0.3, -0.3, -0.2]).sigmoid() - 0.5) ** 2).mean()), rel=1e-4
    )
    for _ in range(60):  # so strong that the pictures' part of the gradient is nothing beside it
        family.apply(torch.autograd.grad(family.penalty(), list(family.alphas.values)))
    gates = family.probabilities()[0]
    assert (gates[:, 0] > 0.9).all()
    assert (gates[:, 1:] < 0.1).all()


def test_the_entropy_penalty_ramps_up_after_the_warm_up():
    family = family_of("entropy", warmup=1, entropy_weight=2.0)
    found = []
    for epoch in range(4):
        family.begin_epoch(Progress(epoch, 4, 5))
        found.append(float(family.penalty().detach()))
    entropy = float(mean_entropy(family.shares()))
    assert found == pytest.approx([0, 0, entropy, 2 * entropy])
    assert entropy == pytest.approx(torch.log(torch.tensor(3.0)).item(), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("darts", {"order": "third"}, r"family\.order='third' is not known, choose one of first, second"),
        ("darts", {"betas": [0.5, 1.0]}, r"family\.betas=1\.0 must be a number of at least 0 and below 1"),
        ("gdas", {"end": 0}, r"family\.end=0 must be a number above 0"),
        ("snas", {"resource": 1.0, "cost": "watts"}, r"family\.cost='watts'"),
        ("proxyless", {"mode": "three"}, r"family\.mode='three'"),
        ("proxyless", {"every": 0}, r"family\.every=0"),
        ("fairdarts", {"zero_one": -1}, r"family\.zero_one=-1"),
    ],
)
def test_mistakes_are_one_line(name, options, message):
    with pytest.raises(UserError, match=message):
        family_of(name, **options)
