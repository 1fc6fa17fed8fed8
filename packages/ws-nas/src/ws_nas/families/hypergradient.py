"""Gradients of a validation loss through what training makes of the weights, by autograd and without copies of models.

All functions take losses as functions of ``(weights, alphas)``, two lists of tensors, so that a model is called with
weights it does not hold (``torch.func.functional_call``). Symbols: ``L_tr`` and ``L_val`` are the losses, ``w`` the
weights, ``a`` the architecture's parameters, ``H`` the Hessian of ``L_tr`` in ``w``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = [
    "Loss",
    "conjugate_gradient",
    "first_order",
    "implicit",
    "largest_eigenvalue",
    "mixed_product",
    "neumann",
    "unrolled",
]

Tensors: TypeAlias = Sequence[Tensor]
Loss: TypeAlias = Callable[[Tensors, Tensors], Tensor]
Product: TypeAlias = Callable[[Tensors], list[Tensor]]


def _leaves(tensors: Tensors) -> list[Tensor]:
    return [t.detach().requires_grad_() for t in tensors]


def _grad(output: Tensor, inputs: Tensors, *, create_graph: bool = False) -> list[Tensor]:
    """Gradients, zeros where an input was not used."""
    if output.grad_fn is None:
        return [torch.zeros_like(x) for x in inputs]
    found = torch.autograd.grad(output, list(inputs), create_graph=create_graph, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]


def dot(a: Tensors, b: Tensors) -> Tensor:
    """Inner product of two lists of tensors."""
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()


def first_order(val_loss: Loss, w: Tensors, a: Tensors) -> list[Tensor]:
    """``dL_val/da`` at the present weights: as if they did not depend on the architecture."""
    leaves = _leaves(a)
    return _grad(val_loss([x.detach() for x in w], leaves), leaves)


def mixed_product(train_loss: Loss, w: Tensors, a: Tensors, v: Tensors, *, scale: float | None = 0.01) -> list[Tensor]:
    """``(d2 L_tr / da dw) v``.

    Args:
        train_loss: ``L_tr``.
        w: Weights.
        a: Architecture.
        v: A direction in the weights.
        scale: Length of the two steps of a central difference of ``dL_tr/da``; ``None`` differentiates twice instead.
    """
    if scale is None:
        weights, leaves = _leaves(w), _leaves(a)
        slopes = _grad(train_loss(weights, leaves), weights, create_graph=True)
        return _grad(dot(slopes, [x.detach() for x in v]), leaves)
    length = math.sqrt(float(dot(v, v)))
    if length == 0:
        return [torch.zeros_like(x) for x in a]
    eps = scale / length
    ahead = first_order(train_loss, [x + eps * d for x, d in zip(w, v, strict=True)], a)
    behind = first_order(train_loss, [x - eps * d for x, d in zip(w, v, strict=True)], a)
    return [(x - y) / (2 * eps) for x, y in zip(ahead, behind, strict=True)]


def unrolled(
    train_loss: Loss,
    val_loss: Loss,
    w: Tensors,
    a: Tensors,
    step: Callable[[Tensors], tuple[Tensors, Sequence[float]]],
    *,
    scale: float | None = 0.01,
) -> list[Tensor]:
    """DARTS' second order: the gradient of ``L_val(w', a)``, ``w'`` one step of training from ``w``.

    ``dL_val/da (w') - (d2 L_tr / da dw) (s * dL_val/dw (w'))`` with ``s`` how much a weight moves per unit of its
    gradient.

    Args:
        train_loss: ``L_tr``.
        val_loss: ``L_val``.
        w: Weights.
        a: Architecture.
        step: From gradients of ``L_tr`` to the weights after the step, and ``s`` of each tensor.
        scale: See :func:`mixed_product`.
    """
    weights = _leaves(w)
    slopes = _grad(train_loss(weights, [x.detach() for x in a]), weights)
    moved, sensitivity = step(slopes)
    moved, leaves = _leaves(moved), _leaves(a)
    loss = val_loss(moved, leaves)
    found = _grad(loss, [*leaves, *moved])
    direct, v = found[: len(leaves)], found[len(leaves) :]
    back = mixed_product(train_loss, w, a, [s * x for s, x in zip(sensitivity, v, strict=True)], scale=scale)
    return [x - y for x, y in zip(direct, back, strict=True)]


def _hessian_product(train_loss: Loss, w: Tensors, a: Tensors) -> Product:
    """``v -> H v``, from one graph."""
    weights = _leaves(w)
    slopes = _grad(train_loss(weights, [x.detach() for x in a]), weights, create_graph=True)
    return lambda v: _grad(dot(slopes, [x.detach() for x in v]), weights)


def neumann(product: Product, v: Tensors, terms: int, step: float) -> list[Tensor]:
    """``H^-1 v`` as ``step * sum over k < terms of (I - step H)^k v``; converges for ``0 < step < 2 / lambda_max``."""
    term = [x.clone() for x in v]
    total = [x.clone() for x in v]
    for _ in range(terms - 1):
        term = [x - step * h for x, h in zip(term, product(term), strict=True)]
        total = [x + y for x, y in zip(total, term, strict=True)]
    return [step * x for x in total]


def conjugate_gradient(
    product: Product, v: Tensors, iterations: int, damping: float = 0.0, tolerance: float = 1e-10
) -> list[Tensor]:
    """``(H + damping I)^-1 v`` by conjugate gradients.

    Stops where a direction of no positive curvature is met: from there on ``H`` is not what the method is for.
    """
    x = [torch.zeros_like(t) for t in v]
    r, p = [t.clone() for t in v], [t.clone() for t in v]
    left = start = float(dot(r, r))
    for _ in range(iterations):
        if left <= tolerance**2 * start or left == 0:
            break
        hp = [h + damping * t for h, t in zip(product(p), p, strict=True)]
        curvature = float(dot(p, hp))
        if curvature <= 0:
            break
        alpha = left / curvature
        x = [t + alpha * d for t, d in zip(x, p, strict=True)]
        r = [t - alpha * d for t, d in zip(r, hp, strict=True)]
        now = float(dot(r, r))
        p = [t + now / left * d for t, d in zip(r, p, strict=True)]
        left = now
    return x


def implicit(
    train_loss: Loss, val_loss: Loss, w: Tensors, a: Tensors, solve: Callable[[Product, Tensors], list[Tensor]]
) -> list[Tensor]:
    """The implicit gradient ``dL_val/da - (d2 L_tr / da dw) H^-1 dL_val/dw`` with an approximate inverse.

    Args:
        train_loss: ``L_tr``.
        val_loss: ``L_val``.
        w: Weights, near a minimum of ``L_tr``.
        a: Architecture.
        solve: From the product with ``H`` and a vector to about ``H^-1`` times the vector.
    """
    weights, leaves = _leaves(w), _leaves(a)
    found = _grad(val_loss(weights, leaves), [*leaves, *weights])
    direct, v = found[: len(leaves)], found[len(leaves) :]
    back = mixed_product(train_loss, w, a, solve(_hessian_product(train_loss, w, a), v), scale=None)
    return [x - y for x, y in zip(direct, back, strict=True)]


def largest_eigenvalue(
    loss: Callable[[Tensors], Tensor], a: Tensors, *, iterations: int = 50, tolerance: float = 1e-4, seed: int = 0
) -> float:
    """The eigenvalue of largest magnitude of ``d2 loss / da2``, by Lanczos with full re-orthogonalisation.

    Args:
        loss: Of the architecture's parameters.
        a: Where.
        iterations: Products with the Hessian at most; as many as there are numbers in ``a`` are exact.
        tolerance: Relative change between two iterations at which to stop.
        seed: Of the first direction.
    """
    leaves = _leaves(a)
    slopes = _grad(loss(leaves), leaves, create_graph=True)
    size = sum(x.numel() for x in leaves)
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(size, generator=generator, dtype=torch.float64).to(leaves[0].device)
    basis = [first / first.norm()]
    diagonal: list[float] = []
    below: list[float] = []
    found = 0.0
    for k in range(min(iterations, size)):
        product = _product_flat(slopes, leaves, basis[k])
        diagonal.append(float(product @ basis[k]))
        for vector in (*basis, *basis):  # twice: once leaves what rounding kept
            product = product - (product @ vector) * vector
        before, found = found, _extreme(diagonal, below)
        length = float(product.norm())
        if length < 1e-10 or (k > 0 and abs(found - before) <= tolerance * abs(found)):
            break
        below.append(length)
        basis.append(product / length)
    return found


def _product_flat(slopes: Tensors, leaves: Tensors, flat: Tensor) -> Tensor:
    parts = flat.split([x.numel() for x in leaves])
    vector = [part.view_as(x).to(x.dtype) for part, x in zip(parts, leaves, strict=True)]
    return torch.cat([x.flatten().double() for x in _grad(dot(slopes, vector), leaves)])


def _extreme(diagonal: Sequence[float], below: Sequence[float]) -> float:
    """The eigenvalue of largest magnitude of a symmetric tridiagonal matrix."""
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for i, value in enumerate(below[: len(diagonal) - 1]):
        matrix[i, i + 1] = matrix[i + 1, i] = value
    values = torch.linalg.eigvalsh(matrix)
    return float(values[values.abs().argmax()])
