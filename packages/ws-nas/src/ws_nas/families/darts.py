"""DARTS: the mixture's weights and architecture in turn, by one of several gradients through the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from effkit.errors import UserError, choose
from ws_nas.families import hypergradient
from ws_nas.families.base import Batch
from ws_nas.families.numbers import number
from ws_nas.families.sgd_step import unrolled_step
from ws_nas.families.soft import Soft
from ws_nas.spaces.space import Space

__all__ = ["DARTS", "ORDERS"]

ORDERS = ("first", "second", "second_exact", "neumann", "cg")
"""``first``: weights are held to be fixed. ``second``: one step of them, by a central difference, as published;
``second_exact``: the same by differentiating twice, which does not see activations switch within the difference.
``neumann``, ``cg``: the implicit gradient."""


class DARTS(Soft):
    """Differentiable architecture search (Liu et al. 2019), with more gradients than the published two.

    Args:
        space: A space that has a mixture.
        supernet: Its super-network.
        seed: Of all that is drawn.
        order: One of :data:`ORDERS`.
        terms: Of the Neumann series, or iterations of the conjugate gradients.
        inner_lr: Step of the Neumann series.
        damping: Added to the Hessian in conjugate gradients.
        **options: As for :class:`Soft`.

    Raises:
        UserError: If a value is out of range.
    """

    name: ClassVar[str] = "darts"

    def __init__(
        self,
        space: Space,
        supernet: nn.Module,
        seed: int = 0,
        *,
        order: str = "first",
        terms: int = 5,
        inner_lr: float = 0.01,
        damping: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(space, supernet, seed, **options)
        self.order = choose("family.order", order, ORDERS)
        number(terms, "family.terms", least=1, whole=True)
        number(inner_lr, "family.inner_lr", above=0)
        number(damping, "family.damping", least=0)
        self.terms, self.inner_lr, self.damping = terms, inner_lr, damping

    def gradients(self, batch: Batch, step: int) -> tuple[list[Tensor], Tensor]:
        """Gradients for the architecture's parameters by the order that was asked for."""
        if self.order == "first":
            return super().gradients(batch, step)
        names = [name for name, _ in self.mixture.named_parameters()]
        weights = [p for _, p in self.mixture.named_parameters()]
        values = list(self.alphas.values)
        seen: list[Tensor] = []
        train_loss = self._functional(names, batch.images, batch.labels, step)
        measured = self._functional(names, *batch.validation, step)

        def val_loss(w: Sequence[Tensor], a: Sequence[Tensor]) -> Tensor:
            loss = self.finite(measured(w, a), None, "the validation loss")
            seen.append(loss.detach())
            return loss

        if self.order in ("second", "second_exact"):
            if self.weight_optimizer is None:
                raise UserError(
                    f"family.order={self.order} looks one step of the weights' optimizer ahead: set it first"
                )
            ahead = partial(unrolled_step, self.weight_optimizer, weights)
            scale = 0.01 if self.order == "second" else None
            found = hypergradient.unrolled(train_loss, val_loss, weights, values, ahead, scale=scale)
        else:
            found = hypergradient.implicit(train_loss, val_loss, weights, values, self._solve())
        penalty = self.penalty()
        if penalty.requires_grad:
            added = torch.autograd.grad(penalty, values)
            found = [x + y for x, y in zip(found, added, strict=True)]
        return found, seen[-1]

    def _functional(self, names: Sequence[str], images: Tensor, labels: Tensor, step: int) -> hypergradient.Loss:
        """The loss of some pictures as a function of weights and architecture."""

        def loss(weights: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
            gates, run = self.gates(values, step, 0)
            given = ([g.to(images.dtype) for g in gates], run)
            logits = functional_call(self.mixture, dict(zip(names, weights, strict=True)), (images, *given))
            return self.loss(logits, labels)

        return loss

    def _solve(self) -> Callable[..., list[Tensor]]:
        if self.order == "neumann":
            return partial(hypergradient.neumann, terms=self.terms, step=self.inner_lr)
        return partial(hypergradient.conjugate_gradient, iterations=self.terms, damping=self.damping)
