"""Gradients through the weights against known answers, against differentiating twice, and against steps taken."""

from __future__ import annotations

import pytest
import torch

from effkit.errors import UserError
from ws_nas.families import hypergradient
from ws_nas.families.sgd_step import unrolled_step
from ws_nas.meters.hypergradient import exact_hypergradient, hypergradient_error

A = torch.tensor([1.0, 4.0], dtype=torch.float64)
EXACT = torch.tensor([1.0, 0.5], dtype=torch.float64)


def quadratic(w, a):
    return 0.5 * (A * w[0] ** 2).sum() - (a[0] * w[0]).sum()


W = [torch.tensor([3.0, -1.0], dtype=torch.float64)]
ALPHA = [A * W[0]]  # where W is the minimum
CENTRE = W[0] - torch.tensor([1.0, 2.0], dtype=torch.float64)


def validation(w, a):
    return 0.5 * ((w[0] - CENTRE) ** 2).sum() + 0 * a[0].sum()


def cosine(a, b):
    a, b = (torch.cat([x.flatten() for x in t]) if isinstance(t, list) else t for t in (a, b))
    return float(a @ b / (a.norm() * b.norm()))


def test_the_exact_gradient_is_the_known_one():
    found = exact_hypergradient(lambda w, a: quadratic([w], [a]), lambda w, a: validation([w], [a]), W[0], ALPHA[0])
    torch.testing.assert_close(found, EXACT)


@pytest.mark.parametrize("scale", [0.01, None])
def test_the_one_step_term_is_proportional_to_the_residual(scale):
    def step(slopes):
        return [w - 0.1 * s for w, s in zip(W, slopes, strict=True)], [0.1]

    found = hypergradient.unrolled(quadratic, validation, W, ALPHA, step, scale=scale)
    torch.testing.assert_close(found[0], 0.1 * torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert hypergradient_error(found[0], EXACT).cosine == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize(("terms", "expected"), [(5, 0.98461), (10, 0.99890)])
def test_neumann_series(terms, expected):
    found = hypergradient.implicit(
        quadratic, validation, W, ALPHA, lambda product, v: hypergradient.neumann(product, v, terms, 0.2)
    )
    assert cosine(found, EXACT) == pytest.approx(expected, abs=2e-5)


def test_conjugate_gradients_are_exact_after_as_many_steps_as_weights():
    def solve(product, v):
        return hypergradient.conjugate_gradient(product, v, 2)

    found = hypergradient.implicit(quadratic, validation, W, ALPHA, solve)
    torch.testing.assert_close(found[0], EXACT)


def test_conjugate_gradients_stop_at_negative_curvature():
    found = hypergradient.conjugate_gradient(lambda v: [-x for x in v], [torch.ones(2)], 5)
    assert found[0].tolist() == [0.0, 0.0]
    damped = hypergradient.conjugate_gradient(lambda v: [-x for x in v], [torch.ones(2)], 5, damping=3.0)
    torch.testing.assert_close(damped[0], torch.full((2,), 0.5))


def test_multiplying_by_the_hessian_instead_of_its_inverse():
    v = A * torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert cosine(v, EXACT) == pytest.approx(0.5547, abs=1e-4)


# --- a small network --------------------------------------------------------------------------------------------------


def losses(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 20, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(2, 20, 2, generator=generator, dtype=torch.float64)
    weights = [torch.randn(3, 4, generator=generator, dtype=torch.float64)]
    weights += [torch.randn(4, 2, generator=generator, dtype=torch.float64)]
    values = [torch.randn(1, 2, generator=generator, dtype=torch.float64)]

    def loss(i):
        def of(w, a):
            p = a[0].softmax(-1)[0]
            hidden = x[i] @ w[0]
            return ((p[0] * torch.tanh(hidden) + p[1] * hidden) @ w[1] - y[i]).square().mean()

        return of

    return loss(0), loss(1), weights, values


def test_second_order_by_difference_and_by_differentiating_twice():
    train_loss, val_loss, w, a = losses()

    def step(slopes):
        return [x - 0.05 * s for x, s in zip(w, slopes, strict=True)], [0.05, 0.05]

    near, exact = (hypergradient.unrolled(train_loss, val_loss, w, a, step, scale=s) for s in (0.01, None))
    assert cosine(near, exact) > 0.999
    # By differentiating through the step itself.
    leaf = a[0].clone().requires_grad_()
    weights = [x.clone().requires_grad_() for x in w]
    slopes = torch.autograd.grad(train_loss(weights, [leaf]), weights, create_graph=True)
    moved = [x - 0.05 * s for x, s in zip(weights, slopes, strict=True)]
    (through,) = torch.autograd.grad(val_loss(moved, [leaf]), leaf)
    torch.testing.assert_close(exact[0], through)
    first = hypergradient.first_order(val_loss, w, a)
    assert cosine(first, exact) < 0.9999


def test_nothing_of_the_weights_or_the_architecture_is_touched():
    train_loss, val_loss, w, a = losses()
    before = [x.clone() for x in (*w, *a)]
    hypergradient.unrolled(train_loss, val_loss, w, a, lambda s: (w, [0.1, 0.1]))
    assert all(torch.equal(x, y) and x.grad is None for x, y in zip((*w, *a), before, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.0},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.01},
    ],
)
@pytest.mark.parametrize("warm", [False, True])
def test_the_step_looked_at_is_the_one_that_sgd_takes(options, warm):
    train_loss, _, w, a = losses()
    weights = [x.clone().requires_grad_() for x in w]
    optimizer = torch.optim.SGD(weights, lr=0.05, **options)
    for turn in range(2 if warm else 1):
        optimizer.zero_grad()
        train_loss(weights, a).backward()
        if turn == warm:
            moved, sensitivity = unrolled_step(optimizer, weights, [x.grad for x in weights])
            pushed, _ = unrolled_step(optimizer, weights, [x.grad + 1 for x in weights])
        optimizer.step()
    for x, y, z, s in zip(weights, moved, pushed, sensitivity, strict=True):
        torch.testing.assert_close(x.detach(), y)
        torch.testing.assert_close(y - z, torch.full_like(y, s))


def test_other_optimizers_are_refused():
    w = [torch.ones(2, requires_grad=True)]
    with pytest.raises(UserError, match=r"weights' optimizer is AdamW: choose optimizer\.opt=momentum"):
        unrolled_step(torch.optim.AdamW(w), w, w)


@pytest.mark.parametrize("matrix", [[[2.0, 1.0], [1.0, -3.0]], [[5.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
def test_largest_eigenvalue_against_the_dense_hessian(matrix):
    m = torch.tensor(matrix, dtype=torch.float64)
    values = [torch.tensor([0.3], dtype=torch.float64), torch.tensor([-0.2], dtype=torch.float64)]

    def loss(a):
        flat = torch.cat([x.flatten() for x in a])
        return 0.5 * flat @ m @ flat

    eigenvalues = torch.linalg.eigvalsh(m)
    expected = float(eigenvalues[eigenvalues.abs().argmax()])
    assert hypergradient.largest_eigenvalue(loss, values) == pytest.approx(expected, abs=1e-8)


def test_largest_eigenvalue_of_a_larger_one():
    generator = torch.Generator().manual_seed(1)
    m = torch.randn(40, 40, generator=generator, dtype=torch.float64)
    m = m @ m.T
    value = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    found = hypergradient.largest_eigenvalue(lambda a: 0.5 * a[0].flatten() @ m @ a[0].flatten(), [value], tolerance=0)
    assert found == pytest.approx(float(torch.linalg.eigvalsh(m)[-1]), rel=1e-8)
