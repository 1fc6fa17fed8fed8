"""ProxylessNAS: binary gates, whose gradient is a product of what an operation gives and what is wanted of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from effkit.errors import UserError, choose
from ws_nas.families.base import Batch, generator_of
from ws_nas.families.costs import expected_cost, operation_costs
from ws_nas.families.numbers import number
from ws_nas.families.relaxed import Relaxed
from ws_nas.spaces.space import Space
from ws_nas.supernets.mixed import Run

__all__ = ["ProxylessNAS", "alpha_gradient", "latency_loss"]

PENALTIES = ("none", "product", "sum")


def alpha_gradient(gate_gradient: Tensor, p: Tensor) -> Tensor:
    """``dL/dalpha_i = sum_j dL/dg_j p_j (delta_ij - p_i)``: each edge's sum is zero.

    Args:
        gate_gradient: ``dL/dg``, ``(edges, operations)``.
        p: Probabilities of the same shape.
    """
    weighted = gate_gradient * p
    return weighted - p * weighted.sum(-1, keepdim=True)


def latency_loss(loss: Tensor, expected: Tensor, reference: float, kind: str, weight: float = 0.1) -> Tensor:
    """The loss with an expected latency, or another cost, in it.

    Args:
        loss: Cross-entropy.
        expected: Expected cost.
        reference: The cost that is wished for, in the same unit.
        kind: ``product``: ``0.2 * loss * (log expected / log reference) ** 0.3``; ``sum``:
            ``loss + weight * (expected - reference) / reference``; ``none``.
        weight: Of ``sum``.

    Raises:
        UserError: If a logarithm is not above 0.
    """
    choose("family.penalty", kind, PENALTIES)
    if kind == "none":
        return loss
    expected = expected.to(loss.dtype)
    if kind == "sum":
        return loss + weight * (expected - reference) / reference
    for name, value in (("the expected cost", float(expected.detach())), ("family.reference", reference)):
        if value <= 1:
            raise UserError(f"{name}={value:g} has no logarithm above 0: use a smaller unit, or family.penalty=sum")
    return 0.2 * loss * (expected.log() / torch.log(torch.tensor(reference, dtype=loss.dtype))) ** 0.3


class ProxylessNAS(Relaxed):
    """ProxylessNAS (Cai et al. 2019): one drawn operation an edge trains weights; gates train the architecture.

    Args:
        space: A space that has a mixture.
        supernet: Its super-network.
        seed: Of all that is drawn.
        mode: ``full``: all operations run in the architecture's pass. ``two``: two drawn ones do, and after the update
            all other probabilities are as they were.
        every: Steps from one update of the architecture to the next.
        penalty: ``none``, ``product`` or ``sum``, see :func:`latency_loss`.
        cost: What is expected: ``macs`` or ``params``.
        reference: The cost wished for; needed with a penalty.
        weight: Of ``penalty=sum``.
        warmup: Epochs in which only weights are trained.
        lr: Of the architecture's Adam.
        betas: Of the architecture's Adam.
        weight_decay: Of the architecture's Adam.
        **options: As for :class:`Relaxed`.

    Raises:
        UserError: If a value is out of range.
    """

    name: ClassVar[str] = "proxyless"

    def __init__(
        self,
        space: Space,
        supernet: nn.Module,
        seed: int = 0,
        *,
        mode: str = "two",
        every: int = 5,
        penalty: str = "none",
        cost: str = "macs",
        reference: float | None = None,
        weight: float = 0.1,
        warmup: int = 40,
        lr: float = 1e-3,
        betas: Sequence[float] = (0.0, 0.999),
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(space, supernet, seed, warmup=warmup, lr=lr, betas=betas, weight_decay=weight_decay, **options)
        self.mode = choose("family.mode", mode, ["full", "two"])
        self.every = number(every, "family.every", least=1, whole=True)
        self.kind = choose("family.penalty", penalty, PENALTIES)
        if self.kind != "none":
            if reference is None:
                raise UserError(f"family.penalty={penalty} needs family.reference, the {cost} wished for")
            number(reference, "family.reference", above=0)
        self.reference, self.weight = reference, float(number(weight, "family.weight", least=0))
        self.costs = operation_costs(space, cost) if self.kind != "none" else None

    def due(self, step: int) -> bool:
        """Every so many steps."""
        return step % self.every == 0

    def gates(self, values: Sequence[Tensor], step: int, k: int) -> tuple[list[Tensor], Run | None]:
        """Binary gates: one operation an edge, drawn by its probability."""
        found, run = [], []
        for t, p in enumerate(self.probabilities(values)):
            index = torch.multinomial(p.detach().cpu(), 1, generator=generator_of(self.seed, step, k, t))
            gate = torch.zeros_like(p).scatter_(1, index.to(p.device), 1.0)
            found.append(gate)
            run.append(gate.bool().tolist())
        return found, run

    def update(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Draw gates, take their gradient, update the architecture."""
        images, labels = batch.validation
        drawn, allowed = self._drawn(step)
        gates = [g.requires_grad_() for g in drawn]
        logits = self.mixture(images, [g.to(images.dtype) for g in gates], [mask.tolist() for mask in allowed])
        loss = self.finite(self.loss(logits, labels), None, "the validation loss")
        values = list(self.alphas.values)
        # Of a product the factor at the gates is that of the loss as a whole.
        slope = torch.ones_like(loss)
        direct = [torch.zeros_like(v) for v in values]
        if self.costs is not None and self.reference is not None:
            held = loss.detach().requires_grad_()
            total = latency_loss(
                held, expected_cost(self.probabilities(), *self.costs), self.reference, self.kind, self.weight
            )
            slope, *direct = torch.autograd.grad(total, [held, *values])
        of_gates = torch.autograd.grad(slope * loss, gates)
        before = [v.detach().clone() for v in values]
        gradients = []
        for g, p, mask, d in zip(of_gates, self.probabilities(), allowed, direct, strict=True):
            gradients.append(self._restricted(g, p.detach(), mask, d))
        self.apply(gradients)
        if self.mode == "two":
            with torch.no_grad():
                for value, old, mask in zip(values, before, allowed, strict=True):
                    value.copy_(_others_kept(value, old, mask))
        return {"val_loss_alpha": loss.detach()}

    def _restricted(self, gate_gradient: Tensor, p: Tensor, mask: Tensor, direct: Tensor) -> Tensor:
        if self.mode == "full":
            return alpha_gradient(gate_gradient, p) + direct
        share = torch.where(mask, p, 0.0)
        share = share / share.sum(-1, keepdim=True)  # the two are a choice of their own
        return alpha_gradient(torch.where(mask, gate_gradient, 0.0), share) + torch.where(mask, direct, 0.0)

    def _drawn(self, step: int) -> tuple[list[Tensor], list[Tensor]]:
        """One-hot gates of one pass, and the operations that take part in it."""
        gates, masks = [], []
        for t, p in enumerate(self.probabilities()):
            p = p.detach()
            generator = generator_of(self.seed, step, 0, t)
            if self.mode == "full":
                mask = torch.ones_like(p, dtype=torch.bool)
                index = torch.multinomial(p.cpu(), 1, generator=generator).to(p.device)
            else:
                two = torch.multinomial(p.cpu(), 2, generator=generator).to(p.device)
                mask = torch.zeros_like(p, dtype=torch.bool).scatter_(1, two, True)
                share = p.gather(1, two)
                pick = torch.multinomial(share.cpu() / share.cpu().sum(1, keepdim=True), 1, generator=generator)
                index = two.gather(1, pick.to(p.device))
            gates.append(torch.zeros_like(p).scatter_(1, index, 1.0))
            masks.append(mask)
        return gates, masks


def _others_kept(values: Tensor, before: Tensor, mask: Tensor) -> Tensor:
    """Shift the two updated parameters by one number, so that the probabilities of all others are as before.

    That is where the sum of the two exponentials stays the same.
    """
    old = torch.where(mask, before, -torch.inf).logsumexp(-1, keepdim=True)
    new = torch.where(mask, values, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.where(mask, values - (new - old), before)
