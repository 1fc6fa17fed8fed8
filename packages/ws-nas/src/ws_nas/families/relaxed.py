"""What families have in common that train a mixture and an architecture's parameters beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ws_nas.families.alphas import Alphas, likeliest_valid, mean_entropy
from ws_nas.families.base import Batch, Family
from ws_nas.families.numbers import number
from ws_nas.spaces.space import Genotype, Space
from ws_nas.supernets.mixed import Mixture, Run
from ws_nas.supernets.mixtures import mixture_of
from ws_nas.supernets.norm import Collecting

__all__ = ["Relaxed"]


class Relaxed(Family):
    """Trains a super-network as a mixture; the architecture's parameters have an Adam of their own.

    The architecture's step comes before that of the weights, on validation pictures. Its parameters are in no optimizer
    of the weights: they are neither decayed nor clipped with them.

    Args:
        space: A space that has a mixture.
        supernet: Its super-network.
        seed: Of all that is drawn.
        lr: Of the architecture's Adam.
        betas: Of the architecture's Adam.
        weight_decay: Of the architecture's Adam.
        warmup: Epochs in which only weights are trained.
        recompute: Keep no activations of operations; saves memory, costs time.
        **options: As for :class:`Family`.

    Raises:
        UserError: If a value is out of range, or the space has no mixture.
    """

    needs_validation: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = ("val_loss_alpha", "alpha_entropy")

    def __init__(
        self,
        space: Space,
        supernet: nn.Module,
        seed: int = 0,
        *,
        lr: float = 3e-4,
        betas: Sequence[float] = (0.5, 0.999),
        weight_decay: float = 1e-3,
        warmup: int = 0,
        recompute: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(space, supernet, seed, **options)
        number(lr, "family.lr", above=0)
        number(weight_decay, "family.weight_decay", least=0)
        number(warmup, "family.warmup", least=0, whole=True)
        for beta in betas:
            number(beta, "family.betas", least=0, below=1)
        self.adam = {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay}
        self.warmup, self.recompute = warmup, recompute
        self.mixture: Mixture = mixture_of(supernet, recompute=recompute)
        self.alphas = Alphas(self.mixture.tables, seed)
        self.architecture = self.alphas
        self.optimizer = self.new_optimizer()

    def new_optimizer(self) -> torch.optim.Adam:
        """The architecture's optimizer, as new."""
        assert self.architecture is not None
        return torch.optim.Adam(self.architecture.parameters(), **self.adam)  # type: ignore[arg-type]

    # --- gates ----------------------------------------------------------------------------------------------------

    def probabilities(self, values: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Probabilities of the operations, one ``(edges, operations)`` a table.

        Args:
            values: The architecture's parameters; those of the family if not given.
        """
        return [v.softmax(-1) for v in (self.alphas.values if values is None else values)]

    def gates(self, values: Sequence[Tensor], step: int, k: int) -> tuple[list[Tensor], Run | None]:
        """Gates of one pass, and which operations run.

        Args:
            values: The architecture's parameters.
            step: The step.
            k: Tells the passes of a step apart: 0 of the architecture, 1 of the weights.
        """
        return self.probabilities(values), None

    def logits(self, images: Tensor, values: Sequence[Tensor], step: int, k: int) -> Tensor:
        """The mixture's answer."""
        gates, run = self.gates(values, step, k)
        return self.mixture(images, [g.to(images.dtype) for g in gates], run)

    # --- training -------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Update the architecture, unless it is too early, then leave the weights' gradients."""
        found: dict[str, Tensor] = {}
        if self.progress.epoch >= self.warmup and self.due(step):
            found = self.update(batch, step)
        fixed = [v.detach() for v in self.alphas.values]
        loss = self.finite(self.loss(self.logits(batch.images, fixed, step, 1), batch.labels), None)
        loss.backward()
        return {**found, "loss": loss.detach(), "alpha_entropy": mean_entropy(self.shares()).detach()}

    def due(self, step: int) -> bool:
        """Whether the architecture is updated in a step."""
        return True

    def update(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """One update of the architecture."""
        gradients, loss = self.gradients(batch, step)
        self.apply(gradients)
        return {"val_loss_alpha": loss}

    def gradients(self, batch: Batch, step: int) -> tuple[list[Tensor], Tensor]:
        """Gradients for the architecture's parameters, and the loss they are of."""
        images, labels = batch.validation
        values = list(self.alphas.values)
        loss = self.finite(self.loss(self.logits(images, values, step, 0), labels), None, "the validation loss")
        return list(torch.autograd.grad(loss + self.penalty(), values)), loss.detach()

    def penalty(self) -> Tensor:
        """What is added to the architecture's loss."""
        return self.alphas.values[0].new_zeros(())

    def apply(self, gradients: Sequence[Tensor]) -> None:
        """Step the architecture's optimizer."""
        self.average(gradients)
        for value, gradient in zip(self.alphas.values, gradients, strict=True):
            value.grad = gradient.detach().clone()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    # --- what comes of it -----------------------------------------------------------------------------------------

    def soft_logits(self, images: Tensor) -> Tensor:
        """Logits of the mixture itself, with its gates as they are."""
        return self.mixture(images, [p.to(images.dtype) for p in self.probabilities()])

    @torch.no_grad()
    def shown(self, images: Tensor) -> list[Tensor]:
        """:meth:`soft_logits`, with the statistics of these pictures."""
        with Collecting():
            return [self.soft_logits(images)]

    @torch.no_grad()
    def shares(self) -> list[Tensor]:
        """How strong operations are, each edge's with a sum of 1: for entropies, pictures and meters."""
        return self.probabilities()

    @torch.no_grad()
    def strengths(self) -> list[Tensor]:
        """What :meth:`derive` compares operations by."""
        return self.probabilities()

    def derive(self) -> Genotype:
        """The strongest operation of every edge, of equal ones the first; the likeliest valid one if it is not."""
        strengths = self.strengths()
        found = self.mixture.genotype(strengths)
        return found if self.space.is_valid(found) else likeliest_valid(self.space, strengths)

    # --- state ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Also the architecture's optimizer."""
        return {**super().state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over."""
        super().load_state_dict(state)
        self.optimizer.load_state_dict(state["optimizer"])
