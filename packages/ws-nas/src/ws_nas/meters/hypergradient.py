"""M5, the hyper-gradient error: how far an estimate of d(validation loss)/d(alpha) is off the exact gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from effkit.errors import UserError

__all__ = ["HypergradientError", "exact_hypergradient", "hypergradient_error"]

Loss = Callable[[Tensor, Tensor], Tensor]

_LARGEST = 5000  # weights up to which the Hessian is made: 200 MB in float64


@dataclass(frozen=True)
class HypergradientError:
    """An estimate beside the exact gradient.

    Attributes:
        cosine: Of the angle between both.
        norm_ratio: Norm of the estimate over that of the exact one.
        relative_error: Norm of their difference over that of the exact one.
    """

    cosine: float
    norm_ratio: float
    relative_error: float


def exact_hypergradient(train_loss: Loss, val_loss: Loss, w: Tensor, alpha: Tensor) -> Tensor:
    """The implicit gradient, by a dense solve in float64: for models of a few thousand weights.

    ``g = dL_val/dalpha - (d2 L_train/dalpha dw) (d2 L_train/dw2)^-1 dL_val/dw``, which is the gradient of
    ``L_val(w*(alpha), alpha)`` where ``w`` minimises the training loss.

    Args:
        train_loss: Of weights ``[W]`` and ``alpha`` ``[A]``, a scalar; twice differentiable.
        val_loss: The same.
        w: ``[W]``, a minimum of the training loss.
        alpha: ``[A]``.

    Returns:
        ``[A]``, float64.

    Raises:
        UserError: If there are too many weights, or the Hessian is singular.
    """
    if w.ndim != 1 or alpha.ndim != 1:
        raise UserError(f"w and alpha must be vectors, got shapes {list(w.shape)} and {list(alpha.shape)}")
    if len(w) > _LARGEST:
        raise UserError(f"w has {len(w)} weights: the exact gradient needs their whole Hessian, up to {_LARGEST}")
    w = w.detach().to(torch.float64).requires_grad_()
    alpha = alpha.detach().to(torch.float64).requires_grad_()
    grad_w, grad_alpha = (
        torch.zeros_like(x) if g is None else g
        for g, x in zip(torch.autograd.grad(val_loss(w, alpha), (w, alpha), allow_unused=True), (w, alpha), strict=True)
    )
    (first,) = torch.autograd.grad(train_loss(w, alpha), w, create_graph=True)
    rows = [torch.autograd.grad(g, (w, alpha), retain_graph=True, allow_unused=True) for g in first]
    hessian = torch.stack([torch.zeros_like(w) if r[0] is None else r[0] for r in rows])
    mixed = torch.stack([torch.zeros_like(alpha) if r[1] is None else r[1] for r in rows])  # [W, A]
    solved, info = torch.linalg.solve_ex(hessian, grad_w)
    if int(info) or not bool(torch.isfinite(solved).all()):
        raise UserError(
            f"the Hessian of the training loss at w ({len(w)} weights) is singular: there is no implicit gradient"
        )
    return (grad_alpha - mixed.T @ solved).detach()


def hypergradient_error(estimate: Tensor, exact: Tensor) -> HypergradientError:
    """M5: cosine and relative norm between an estimate and the exact hyper-gradient.

    Args:
        estimate: ``[A]``.
        exact: ``[A]``, e.g. from :func:`exact_hypergradient`.

    Raises:
        UserError: If shapes differ, a value is not finite, or the exact gradient is zero.
    """
    if estimate.shape != exact.shape:
        raise UserError(f"estimate has shape {list(estimate.shape)}, the exact gradient {list(exact.shape)}")
    a, b = (x.detach().to(torch.float64).flatten() for x in (estimate, exact))
    for name, x in (("estimate", a), ("exact", b)):
        if not bool(torch.isfinite(x).all()):
            raise UserError(f"{name} holds what is no finite number")
    norm_a, norm_b = float(a.norm()), float(b.norm())
    if norm_b == 0:
        raise UserError("the exact hyper-gradient is zero: no direction or relative norm can be held against it")
    cosine = float(a @ b) / (norm_a * norm_b) if norm_a else math.nan
    return HypergradientError(cosine, norm_a / norm_b, float((a - b).norm()) / norm_b)
